CREATE TABLE "attempt" (
	"id" text PRIMARY KEY NOT NULL,
	"job_id" text NOT NULL,
	"number" integer NOT NULL,
	"runner_id" text NOT NULL,
	"request_id" text NOT NULL,
	"lease_token" text NOT NULL,
	"lease_expires_at" timestamp (3) with time zone NOT NULL,
	"gpus" integer[] NOT NULL,
	"state" text NOT NULL,
	"reason_code" text,
	"reason_message" text,
	"reason_hint" text,
	"log_excerpt" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"exit_code" integer,
	"signal" text,
	"mark" bigint DEFAULT 0 NOT NULL,
	"lines" bigint DEFAULT 0 NOT NULL,
	"lines_crc" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone,
	"start_expires_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "placement" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"since_oldest" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "placement_only" CHECK ("placement"."only")
);
--> statement-breakpoint
CREATE TABLE "defaults_current" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"version" text NOT NULL,
	"changed_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "defaults_current_only" CHECK ("defaults_current"."only")
);
--> statement-breakpoint
CREATE TABLE "defaults_version" (
	"version" text PRIMARY KEY NOT NULL,
	"documented" jsonb NOT NULL,
	"platform" jsonb NOT NULL,
	"hash" text NOT NULL,
	"notes" text,
	"published_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"published_by" text
);
--> statement-breakpoint
CREATE TABLE "event" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text,
	"job_id" text,
	"seq" bigint,
	"type" text NOT NULL,
	"time" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"actor_id" text,
	"message" text NOT NULL,
	"from_state" text,
	"to_state" text,
	"data" jsonb,
	"changed" "xid8" DEFAULT pg_current_xact_id() NOT NULL
);
--> statement-breakpoint
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
CREATE TABLE "job" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text NOT NULL,
	"number" bigint NOT NULL,
	"name" text NOT NULL,
	"state" text NOT NULL,
	"reason_code" text,
	"reason_message" text,
	"reason_hint" text,
	"log_excerpt" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"model" text NOT NULL,
	"dataset" text NOT NULL,
	"spec" jsonb NOT NULL,
	"effective" jsonb NOT NULL,
	"resolved" jsonb NOT NULL,
	"defaults_version" text NOT NULL,
	"policy_revision" integer DEFAULT 0 NOT NULL,
	"spec_hash" text NOT NULL,
	"tags" text[] NOT NULL,
	"notes" text,
	"priority" integer NOT NULL,
	"gpus" integer NOT NULL,
	"timeout_seconds" integer,
	"not_before" timestamp (3) with time zone,
	"queue_expires_at" timestamp (3) with time zone,
	"left_out" text[] DEFAULT '{}' NOT NULL,
	"progress" jsonb,
	"cancel_grace_seconds" integer,
	"submitted_by" text,
	"retried_from" text,
	"schedule_id" text,
	"due_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone,
	"updated_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"changed" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	CONSTRAINT "job_state" CHECK ("job"."state" in ('QUEUED', 'STARTING', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT')),
	CONSTRAINT "job_finished" CHECK (("job"."finished_at" is not null) = ("job"."state" in ('SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT')))
);
--> statement-breakpoint
CREATE TABLE "job_stream" (
	"job_id" text PRIMARY KEY NOT NULL,
	"line" bigint DEFAULT 0 NOT NULL,
	"event" bigint DEFAULT 0 NOT NULL,
	"window" bigint DEFAULT 0 NOT NULL,
	"revision" bigint DEFAULT 0 NOT NULL,
	"log_bytes" bigint DEFAULT 0 NOT NULL,
	"metric_names" integer DEFAULT 0 NOT NULL,
	"metric_refused" boolean DEFAULT false NOT NULL
);
--> statement-breakpoint
CREATE TABLE "log_chunk" (
	"job_id" text NOT NULL,
	"first" bigint NOT NULL,
	"last" bigint NOT NULL,
	"attempt" integer NOT NULL,
	"first_time" timestamp (3) with time zone NOT NULL,
	"last_time" timestamp (3) with time zone NOT NULL,
	"body" "bytea" NOT NULL,
	"size" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "log_chunk_job_id_first_pk" PRIMARY KEY("job_id","first")
);
--> statement-breakpoint
CREATE TABLE "metric" (
	"job_id" text NOT NULL,
	"name" text NOT NULL,
	"count" bigint NOT NULL,
	"last" jsonb NOT NULL,
	"min" jsonb,
	"max" jsonb,
	CONSTRAINT "metric_job_id_name_pk" PRIMARY KEY("job_id","name")
);
--> statement-breakpoint
CREATE TABLE "metric_chunk" (
	"job_id" text NOT NULL,
	"attempt" integer NOT NULL,
	"first" bigint NOT NULL,
	"body" "bytea" NOT NULL,
	CONSTRAINT "metric_chunk_job_id_attempt_first_pk" PRIMARY KEY("job_id","attempt","first")
);
--> statement-breakpoint
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
CREATE TABLE "metric_window" (
	"job_id" text NOT NULL,
	"name" text NOT NULL,
	"attempt" integer NOT NULL,
	"seconds" integer NOT NULL,
	"start" bigint NOT NULL,
	"state" jsonb NOT NULL,
	"revision" integer NOT NULL,
	"change" bigint NOT NULL,
	"closed" boolean NOT NULL,
	"rolled" boolean DEFAULT false NOT NULL,
	CONSTRAINT "metric_window_job_id_name_attempt_seconds_start_pk" PRIMARY KEY("job_id","name","attempt","seconds","start")
);
--> statement-breakpoint
CREATE TABLE "policy" (
	"project_id" text NOT NULL,
	"revision" integer NOT NULL,
	"rules" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"created_by" text,
	CONSTRAINT "policy_project_id_revision_pk" PRIMARY KEY("project_id","revision"),
	CONSTRAINT "policy_revision" CHECK ("policy"."revision" > 0)
);
--> statement-breakpoint
CREATE TABLE "access_token" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text,
	"runner_project_ids" text[],
	"name" text NOT NULL,
	"prefix" text NOT NULL,
	"hash" text NOT NULL,
	"scopes" text[] NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "project" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"command" jsonb,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"archived_at" timestamp (3) with time zone,
	CONSTRAINT "project_id" CHECK ("project"."id" ~ '^p-[a-z0-9][a-z0-9-]{0,61}$')
);
--> statement-breakpoint
CREATE TABLE "idempotency_key" (
	"scope" text NOT NULL,
	"mutation" text NOT NULL,
	"key" text NOT NULL,
	"fingerprint" text NOT NULL,
	"input" jsonb NOT NULL,
	"object_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "idempotency_key_scope_mutation_key_pk" PRIMARY KEY("scope","mutation","key")
);
--> statement-breakpoint
CREATE TABLE "runner" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"token_id" text NOT NULL,
	"project_ids" text[],
	"gpus" jsonb NOT NULL,
	"labels" text[] NOT NULL,
	"places" integer,
	"version" text NOT NULL,
	"boot_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"last_seen_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"claimed_at" timestamp (3) with time zone,
	"draining_at" timestamp (3) with time zone
);
--> statement-breakpoint
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
CREATE TABLE "secret" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text NOT NULL,
	"name" text NOT NULL,
	"version" integer NOT NULL,
	"key_id" text NOT NULL,
	"wrapped_key" "bytea" NOT NULL,
	"sealed_value" "bytea" NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"last_used_at" timestamp (3) with time zone,
	CONSTRAINT "secret_version" CHECK ("secret"."version" > 0)
);
--> statement-breakpoint
CREATE TABLE "job_number" (
	"project_id" text PRIMARY KEY NOT NULL,
	"next" bigint NOT NULL
);
--> statement-breakpoint
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_runner_id_runner_id_fk" FOREIGN KEY ("runner_id") REFERENCES "public"."runner"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "defaults_current" ADD CONSTRAINT "defaults_current_version_defaults_version_version_fk" FOREIGN KEY ("version") REFERENCES "public"."defaults_version"("version") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "refused_record" ADD CONSTRAINT "refused_record_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job" ADD CONSTRAINT "job_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job_stream" ADD CONSTRAINT "job_stream_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "log_chunk" ADD CONSTRAINT "log_chunk_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric" ADD CONSTRAINT "metric_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric_chunk" ADD CONSTRAINT "metric_chunk_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric_tier" ADD CONSTRAINT "metric_tier_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric_window" ADD CONSTRAINT "metric_window_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "policy" ADD CONSTRAINT "policy_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "access_token" ADD CONSTRAINT "access_token_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "schedule" ADD CONSTRAINT "schedule_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "schedule_run" ADD CONSTRAINT "schedule_run_schedule_id_schedule_id_fk" FOREIGN KEY ("schedule_id") REFERENCES "public"."schedule"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "secret" ADD CONSTRAINT "secret_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job_number" ADD CONSTRAINT "job_number_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_number" ON "attempt" USING btree ("job_id","number");--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_request" ON "attempt" USING btree ("runner_id","request_id");--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_one_active" ON "attempt" USING btree ("job_id") WHERE "attempt"."finished_at" is null;--> statement-breakpoint
CREATE INDEX "attempt_active" ON "attempt" USING btree ("runner_id") WHERE "attempt"."finished_at" is null;--> statement-breakpoint
CREATE INDEX "attempt_start_expires" ON "attempt" USING btree ("start_expires_at") WHERE "attempt"."state" = 'STARTING' and "attempt"."finished_at" is null;--> statement-breakpoint
CREATE UNIQUE INDEX "event_job" ON "event" USING btree ("job_id","seq");--> statement-breakpoint
CREATE INDEX "event_project_order" ON "event" USING btree ("project_id","changed","job_id","seq");--> statement-breakpoint
CREATE INDEX "refused_record_job" ON "refused_record" USING btree ("job_id");--> statement-breakpoint
CREATE INDEX "refused_record_project" ON "refused_record" USING btree ("project_id");--> statement-breakpoint
CREATE INDEX "refused_record_time" ON "refused_record" USING btree ("refused_at");--> statement-breakpoint
CREATE UNIQUE INDEX "job_project_number" ON "job" USING btree ("project_id","number");--> statement-breakpoint
CREATE UNIQUE INDEX "job_schedule_due" ON "job" USING btree ("schedule_id","due_at");--> statement-breakpoint
CREATE INDEX "job_schedule_created" ON "job" USING btree ("schedule_id","created_at","id") WHERE "job"."schedule_id" is not null;--> statement-breakpoint
CREATE INDEX "job_created" ON "job" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "job_updated" ON "job" USING btree ("updated_at","id");--> statement-breakpoint
CREATE INDEX "job_changed" ON "job" USING btree ("changed","id");--> statement-breakpoint
CREATE INDEX "job_finished" ON "job" USING btree ("finished_at","id") WHERE "job"."finished_at" is not null;--> statement-breakpoint
CREATE INDEX "job_project_created" ON "job" USING btree ("project_id","created_at","id");--> statement-breakpoint
CREATE INDEX "job_queued" ON "job" USING btree ("priority","created_at","id") WHERE "job"."state" = 'QUEUED';--> statement-breakpoint
CREATE INDEX "job_queue_expires" ON "job" USING btree ("queue_expires_at") WHERE "job"."state" = 'QUEUED';--> statement-breakpoint
CREATE INDEX "job_not_before" ON "job" USING btree ("not_before") WHERE "job"."state" = 'QUEUED' and "job"."not_before" is not null;--> statement-breakpoint
CREATE INDEX "log_chunk_last" ON "log_chunk" USING btree ("job_id","last");--> statement-breakpoint
CREATE INDEX "metric_tier_change" ON "metric_tier" USING btree ("job_id","seconds","change");--> statement-breakpoint
CREATE INDEX "metric_window_change" ON "metric_window" USING btree ("job_id","change");--> statement-breakpoint
CREATE INDEX "metric_window_order" ON "metric_window" USING btree ("job_id","name","start","attempt");--> statement-breakpoint
CREATE INDEX "metric_window_unrolled" ON "metric_window" USING btree ("job_id","name","attempt","start") WHERE not "metric_window"."rolled";--> statement-breakpoint
CREATE UNIQUE INDEX "access_token_hash" ON "access_token" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "access_token_project" ON "access_token" USING btree ("project_id");--> statement-breakpoint
CREATE UNIQUE INDEX "runner_name" ON "runner" USING btree ("token_id","name");--> statement-breakpoint
CREATE INDEX "runner_seen" ON "runner" USING btree ("last_seen_at");--> statement-breakpoint
CREATE UNIQUE INDEX "schedule_project_name" ON "schedule" USING btree ("project_id","name");--> statement-breakpoint
CREATE INDEX "schedule_due" ON "schedule" USING btree ("next_due_at","id") WHERE "schedule"."paused_at" is null;--> statement-breakpoint
CREATE UNIQUE INDEX "secret_project_name" ON "secret" USING btree ("project_id","name");