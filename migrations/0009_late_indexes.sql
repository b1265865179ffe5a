-- Whether a generation has the indexes that nothing needs while it is built.
ALTER TABLE projector.generations ADD COLUMN indexed boolean NOT NULL DEFAULT true;
