CREATE TABLE "refused_record" (
	"attempt_id" text NOT NULL,
	"number" bigint NOT NULL,
	"job_id" text NOT NULL,
	"project_id" text NOT NULL,
	"attempt" integer NOT NULL,
	"seq" bigint,
	"record" "bytea" NOT NULL,
	"reason" text NOT NULL,
	"refused_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "refused_record_attempt_id_number_pk" PRIMARY KEY("attempt_id","number")
);
--> statement-breakpoint
ALTER TABLE "refused_record" ADD CONSTRAINT "refused_record_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "refused_record_job" ON "refused_record" USING btree ("job_id");--> statement-breakpoint
CREATE INDEX "refused_record_project" ON "refused_record" USING btree ("project_id");--> statement-breakpoint
CREATE INDEX "refused_record_time" ON "refused_record" USING btree ("refused_at");