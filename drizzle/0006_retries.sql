ALTER TABLE "attempt" ADD COLUMN "start_expires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "placement" ADD COLUMN "since_oldest" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "job" ADD COLUMN "not_before" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "job" ADD COLUMN "queue_expires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "job" ADD COLUMN "left_out" text[] DEFAULT '{}' NOT NULL;--> statement-breakpoint
ALTER TABLE "runner" ADD COLUMN "claimed_at" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "attempt_start_expires" ON "attempt" USING btree ("start_expires_at") WHERE "attempt"."state" = 'STARTING' and "attempt"."finished_at" is null;--> statement-breakpoint
CREATE INDEX "job_queue_expires" ON "job" USING btree ("queue_expires_at") WHERE "job"."state" = 'QUEUED';--> statement-breakpoint
CREATE INDEX "job_not_before" ON "job" USING btree ("not_before") WHERE "job"."state" = 'QUEUED' and "job"."not_before" is not null;