ALTER TABLE "access_token" ADD COLUMN "runner_project_ids" text[];--> statement-breakpoint
ALTER TABLE "runner" ADD COLUMN "project_ids" text[];