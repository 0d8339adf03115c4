CREATE TABLE "schedule" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text NOT NULL,
	"name" text NOT NULL,
	"cron" text NOT NULL,
	"timezone" text NOT NULL,
	"on_overlap" text NOT NULL,
	"starting_deadline_seconds" integer NOT NULL,
	"spec" jsonb NOT NULL,
	"defaults_version" text NOT NULL,
	"paused_at" timestamp (3) with time zone,
	"next_due_at" timestamp (3) with time zone,
	"created_by" text,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "schedule_overlap" CHECK ("schedule"."on_overlap" in ('ALLOW', 'FORBID', 'REPLACE'))
);
--> statement-breakpoint
CREATE TABLE "schedule_run" (
	"schedule_id" text NOT NULL,
	"due_at" timestamp (3) with time zone NOT NULL,
	"last_due_at" timestamp (3) with time zone NOT NULL,
	"job_id" text,
	"reason_code" text,
	"reason_message" text,
	"decided_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "schedule_run_schedule_id_due_at_pk" PRIMARY KEY("schedule_id","due_at"),
	CONSTRAINT "schedule_run_outcome" CHECK (("schedule_run"."job_id" is null) = ("schedule_run"."reason_code" is not null))
);
--> statement-breakpoint
ALTER TABLE "job" ADD COLUMN "schedule_id" text;--> statement-breakpoint
ALTER TABLE "job" ADD COLUMN "due_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "schedule" ADD CONSTRAINT "schedule_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "schedule_run" ADD CONSTRAINT "schedule_run_schedule_id_schedule_id_fk" FOREIGN KEY ("schedule_id") REFERENCES "public"."schedule"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "schedule_project_name" ON "schedule" USING btree ("project_id","name");--> statement-breakpoint
CREATE INDEX "schedule_due" ON "schedule" USING btree ("next_due_at","id") WHERE "schedule"."paused_at" is null;--> statement-breakpoint
CREATE UNIQUE INDEX "job_schedule_due" ON "job" USING btree ("schedule_id","due_at");--> statement-breakpoint
CREATE INDEX "job_schedule_created" ON "job" USING btree ("schedule_id","created_at","id") WHERE "job"."schedule_id" is not null;