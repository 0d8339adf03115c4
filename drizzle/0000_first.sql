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
	"exit_code" integer,
	"signal" text,
	"mark" bigint DEFAULT 0 NOT NULL,
	"lines" bigint DEFAULT 0 NOT NULL,
	"lines_crc" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "placement" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
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
	"spec_hash" text NOT NULL,
	"tags" text[] NOT NULL,
	"notes" text,
	"priority" integer NOT NULL,
	"gpus" integer NOT NULL,
	"timeout_seconds" integer,
	"progress" jsonb,
	"cancel_grace_seconds" integer,
	"submitted_by" text,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone,
	"updated_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"changed" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	CONSTRAINT "job_state" CHECK ("job"."state" in ('QUEUED', 'STARTING', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT')),
	CONSTRAINT "job_finished" CHECK (("job"."finished_at" is not null) = ("job"."state" in ('SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT')))
);
--> statement-breakpoint
CREATE TABLE "job_number" (
	"project_id" text PRIMARY KEY NOT NULL,
	"next" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "job_stream" (
	"job_id" text PRIMARY KEY NOT NULL,
	"line" bigint DEFAULT 0 NOT NULL,
	"event" bigint DEFAULT 0 NOT NULL,
	"window" bigint DEFAULT 0 NOT NULL,
	"revision" bigint DEFAULT 0 NOT NULL,
	"log_bytes" bigint DEFAULT 0 NOT NULL
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
	CONSTRAINT "metric_window_job_id_name_attempt_seconds_start_pk" PRIMARY KEY("job_id","name","attempt","seconds","start")
);
--> statement-breakpoint
CREATE TABLE "access_token" (
	"id" text PRIMARY KEY NOT NULL,
	"project_id" text,
	"name" text NOT NULL,
	"prefix" text NOT NULL,
	"hash" text NOT NULL,
	"scopes" text[] NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "project" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"command" jsonb,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
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
	"gpus" jsonb NOT NULL,
	"labels" text[] NOT NULL,
	"version" text NOT NULL,
	"boot_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL,
	"last_seen_at" timestamp (3) with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_runner_id_runner_id_fk" FOREIGN KEY ("runner_id") REFERENCES "public"."runner"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "defaults_current" ADD CONSTRAINT "defaults_current_version_defaults_version_version_fk" FOREIGN KEY ("version") REFERENCES "public"."defaults_version"("version") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job" ADD CONSTRAINT "job_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job_number" ADD CONSTRAINT "job_number_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "job_stream" ADD CONSTRAINT "job_stream_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "log_chunk" ADD CONSTRAINT "log_chunk_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric" ADD CONSTRAINT "metric_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric_chunk" ADD CONSTRAINT "metric_chunk_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric_window" ADD CONSTRAINT "metric_window_job_id_job_id_fk" FOREIGN KEY ("job_id") REFERENCES "public"."job"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "access_token" ADD CONSTRAINT "access_token_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_number" ON "attempt" USING btree ("job_id","number");--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_request" ON "attempt" USING btree ("runner_id","request_id");--> statement-breakpoint
CREATE UNIQUE INDEX "attempt_one_active" ON "attempt" USING btree ("job_id") WHERE "attempt"."finished_at" is null;--> statement-breakpoint
CREATE INDEX "attempt_active" ON "attempt" USING btree ("runner_id") WHERE "attempt"."finished_at" is null;--> statement-breakpoint
CREATE UNIQUE INDEX "event_job" ON "event" USING btree ("job_id","seq");--> statement-breakpoint
CREATE INDEX "event_project" ON "event" USING btree ("project_id","changed","id");--> statement-breakpoint
CREATE UNIQUE INDEX "job_project_number" ON "job" USING btree ("project_id","number");--> statement-breakpoint
CREATE INDEX "job_created" ON "job" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "job_updated" ON "job" USING btree ("updated_at","id");--> statement-breakpoint
CREATE INDEX "job_project_created" ON "job" USING btree ("project_id","created_at","id");--> statement-breakpoint
CREATE INDEX "job_queued" ON "job" USING btree ("priority","created_at","id") WHERE "job"."state" = 'QUEUED';--> statement-breakpoint
CREATE INDEX "log_chunk_last" ON "log_chunk" USING btree ("job_id","last");--> statement-breakpoint
CREATE INDEX "metric_window_change" ON "metric_window" USING btree ("job_id","change");--> statement-breakpoint
CREATE INDEX "metric_window_order" ON "metric_window" USING btree ("job_id","name","start","attempt");--> statement-breakpoint
CREATE UNIQUE INDEX "access_token_hash" ON "access_token" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "access_token_project" ON "access_token" USING btree ("project_id");--> statement-breakpoint
CREATE UNIQUE INDEX "runner_name" ON "runner" USING btree ("token_id","name");--> statement-breakpoint
CREATE INDEX "runner_seen" ON "runner" USING btree ("last_seen_at");