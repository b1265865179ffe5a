-- A topic that a pattern matched is not there any more: no generation waits for what this one has read of it.
ALTER TABLE projector.topics ADD COLUMN gone_at timestamptz;
