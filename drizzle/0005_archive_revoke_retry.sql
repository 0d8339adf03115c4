ALTER TABLE "job" ADD COLUMN "retried_from" text;--> statement-breakpoint
ALTER TABLE "access_token" ADD COLUMN "revoked_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "project" ADD COLUMN "archived_at" timestamp (3) with time zone;