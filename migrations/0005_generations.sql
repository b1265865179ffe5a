-- Several generations of a projection at once: one that readers see, one that is being built, some that are kept.
ALTER TABLE projector.generations DROP CONSTRAINT generations_state_check;
ALTER TABLE projector.generations
    ADD CONSTRAINT generations_state_check CHECK (state IN (
        -- It is folded, and takes the place of the live one when it has caught up.
        'building',
        -- Readers see it.
        'live',
        -- It was live, and is folded on, so that readers can be given it back.
        'kept',
        -- It is folded to be compared with the live one, and never shown.
        'scratch',
        'dropped')),
    -- Whether it is shown as soon as it has caught up, or when somebody says so.
    ADD COLUMN promote text NOT NULL DEFAULT 'auto' CHECK (promote IN ('auto', 'manual')),
    -- Where its history begins, when that is not where its sources say: a time.
    ADD COLUMN history_from timestamptz,
    -- Events a second that are folded at most until it has caught up.
    ADD COLUMN max_rate double precision,
    -- It had caught up with the live one then.
    ADD COLUMN ready_at timestamptz,
    -- Why it has not been promoted though it has caught up, the last time that was tried.
    ADD COLUMN refused text,
    ADD COLUMN promoted_at timestamptz,
    ADD COLUMN replaced_at timestamptz;
CREATE UNIQUE INDEX ON projector.generations (projection) WHERE state = 'building';

-- The files of a definition as they were, with the upcasters: whoever folds the generation compiles them again.
-- What tells its upcasters from others stands beside them: a definition is the one of before only with the same upcasters.
ALTER TABLE projector.definitions ADD COLUMN files jsonb, ADD COLUMN upcasters text;

-- Nothing from this offset on is committed until then: how two generations are brought to the same place.
ALTER TABLE projector.checkpoints
    ADD COLUMN stop_at    bigint,
    ADD COLUMN stop_until timestamptz;
