DROP INDEX "event_project";--> statement-breakpoint
CREATE INDEX "event_project_order" ON "event" USING btree ("project_id","changed","job_id","seq");--> statement-breakpoint
CREATE INDEX "job_changed" ON "job" USING btree ("changed","id");