-- How many events a generation had folded when it had caught up: with the time that it took, what the next build will take.
ALTER TABLE projector.generations ADD COLUMN built_events bigint;
