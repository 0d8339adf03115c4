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
ALTER TABLE "job" ADD COLUMN "policy_revision" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "policy" ADD CONSTRAINT "policy_project_id_project_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."project"("id") ON DELETE no action ON UPDATE no action;