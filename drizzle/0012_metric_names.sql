ALTER TABLE "job_stream" ADD COLUMN "metric_names" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "job_stream" ADD COLUMN "metric_refused" boolean DEFAULT false NOT NULL;--> statement-breakpoint
UPDATE "job_stream" SET "metric_names" = (SELECT count(*) FROM "metric" WHERE "metric"."job_id" = "job_stream"."job_id");
