CREATE TABLE "metric_tier" (
	"job_id" text NOT NULL,
	"name" text NOT NULL,
	"attempt" integer NOT NULL,
	"seconds" integer NOT NULL,
	"start" bigint NOT NULL,
	"state" jsonb NOT NULL,
	"revision" integer NOT NULL,
	"change" bigint NOT NULL,
	CONSTRAINT "metric_tier_job_id_name_seconds_start_attempt_pk" PRIMARY KEY("job_id","name","seconds","start","attempt")
);
--> statement-breakpoint
ALTER TABLE "metric_window" ADD COLUMN "rolled" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "metric_tier" ADD CONSTRAINT "metric_tier_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "metric_tier_change" ON "metric_tier" USING btree ("job_id","seconds","change");--> statement-breakpoint
CREATE INDEX "job_finished" ON "job" USING btree ("finished_at","id") WHERE "job"."finished_at" is not null;--> statement-breakpoint
CREATE INDEX "metric_window_unrolled" ON "metric_window" USING btree ("job_id","name","attempt","start") WHERE not "metric_window"."rolled";