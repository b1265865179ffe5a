-- The fixture of the compatibility cases (PostgreSQL 15). Loads into an empty database:
--   createdb h3 && psql -v ON_ERROR_STOP=1 -f fixture.sql h3
-- Served schemas: `served` (first), `other`. Not served: `hidden`. Anonymous role: anon. Roles of tokens: clerk, boss.
\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- Roles belong to the cluster; they may be there already.
DO $$
DECLARE one text;
BEGIN
  FOREACH one IN ARRAY ARRAY['anon', 'clerk', 'boss'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', one);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
  EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'UTC');
  EXECUTE format('ALTER DATABASE %I SET intervalstyle = %L', current_database(), 'postgres');
  EXECUTE format('ALTER DATABASE %I SET default_text_search_config = %L', current_database(), 'pg_catalog.english');
END $$;
SET timezone = 'UTC';

CREATE SCHEMA served;
CREATE SCHEMA other;
CREATE SCHEMA hidden;
SET search_path = served;

-- Types.
CREATE TYPE ship_kind AS ENUM ('ferry', 'tanker', 'trawler', 'yacht');
CREATE TYPE mood AS ENUM ('grim', 'calm', 'merry');
CREATE TYPE spot AS (lat numeric(8, 4), lon numeric(8, 4));
CREATE DOMAIN postcode AS text CHECK (VALUE ~ '^[0-9]{5}$');
CREATE DOMAIN above_zero AS integer CHECK (VALUE > 0);
CREATE DOMAIN words AS tsvector;

-- Many to one: owners, ports. Two foreign keys from ships to ports.
CREATE TABLE owners (
  id integer PRIMARY KEY,
  name text NOT NULL,
  rating numeric(3, 1)
);
CREATE TABLE ports (
  id integer PRIMARY KEY,
  fee numeric(8, 2),
  name text NOT NULL,
  country char(2) NOT NULL
);
CREATE TABLE ships (
  id integer PRIMARY KEY,
  name text NOT NULL,
  kind ship_kind NOT NULL,
  owner_id integer CONSTRAINT ships_owner_fkey REFERENCES owners,
  home_port integer CONSTRAINT ships_home_port_fkey REFERENCES ports,
  last_port integer CONSTRAINT ships_last_port_fkey REFERENCES ports,
  launched date,
  tonnage integer,
  specs jsonb,
  tags text[]
);
INSERT INTO owners VALUES (1, 'Aino', 4.5), (2, 'Bertil', 3.0), (3, 'Cecilia', NULL), (4, 'Dario', 4.5);
INSERT INTO ports VALUES
  (1, 120.50, 'Turku', 'FI'), (2, 99.00, 'Gdynia', 'PL'), (3, NULL, 'Visby', 'SE'), (4, 310.25, 'Hamburg', 'DE'), (5, 80.00, 'Riga', 'LV');
INSERT INTO ships VALUES
  (1, 'Albatross', 'ferry', 1, 1, 2, '1998-05-17', 12000, '{"engine":{"kw":5400,"fuel":"diesel"},"decks":7,"crew":[12,30]}', '{fast,night}'),
  (2, 'Beluga', 'tanker', 2, 4, 4, '2005-11-02', 88000, '{"engine":{"kw":15000,"fuel":"lng"},"decks":2,"crew":[22]}', '{slow}'),
  (3, 'Cormorant', 'trawler', 1, 2, 3, '1987-01-30', 450, '{"engine":{"kw":700,"fuel":"diesel"},"decks":1}', '{}'),
  (4, 'Dunlin', 'yacht', NULL, 3, NULL, '2020-07-04', 35, '{"engine":null,"sails":["main","jib"]}', '{fast,private,white}'),
  (5, 'Eider', 'ferry', 4, 1, 1, '2011-03-21', 16000, NULL, NULL),
  (6, 'Fulmar', 'tanker', 2, 4, 2, NULL, 91000, '{"engine":{"kw":16000,"fuel":"diesel"},"decks":2}', '{slow,old}'),
  (7, 'Gannet', 'trawler', NULL, NULL, NULL, '1987-01-30', NULL, '{}', '{night}'),
  (8, 'heron', 'yacht', 4, 3, 5, '2015-09-09', 60, '{"engine":{"kw":90,"fuel":"electric"},"sails":["main"]}', '{fast,white}');

-- One to one: by primary key, by unique constraint.
CREATE TABLE papers (
  ship_id integer PRIMARY KEY CONSTRAINT papers_ship_fkey REFERENCES ships,
  number text NOT NULL,
  issued date
);
CREATE TABLE captains (
  id integer PRIMARY KEY,
  name text NOT NULL,
  ship_id integer UNIQUE CONSTRAINT captains_ship_fkey REFERENCES ships
);
INSERT INTO papers VALUES (1, 'FI-1', '1998-06-01'), (2, 'DE-77', '2006-01-01'), (5, 'FI-2', NULL);
INSERT INTO captains VALUES (1, 'Ahti', 1), (2, 'Brita', 2), (3, 'Cyril', NULL), (4, 'Dagny', 8);

-- One to many, and a reference to itself.
CREATE TABLE crew (
  id integer PRIMARY KEY,
  name text NOT NULL,
  boss_id integer CONSTRAINT crew_boss_fkey REFERENCES crew,
  ship_id integer CONSTRAINT crew_ship_fkey REFERENCES ships,
  pay numeric(8, 2)
);
INSERT INTO crew VALUES
  (1, 'Maija', NULL, 1, 4000.00), (2, 'Nils', 1, 1, 2500.50), (3, 'Olga', 1, 1, 2600.00), (4, 'Pekka', 2, 2, 2100.00),
  (5, 'Qamar', 2, 2, NULL), (6, 'Rosa', NULL, NULL, 1900.00), (7, 'Sven', 6, 3, 2100.00);

-- Many to many: one junction; and two junctions between the same two tables.
CREATE TABLE routes (
  id integer PRIMARY KEY,
  name text NOT NULL
);
CREATE TABLE ship_routes (
  ship_id integer CONSTRAINT ship_routes_ship_fkey REFERENCES ships,
  route_id integer CONSTRAINT ship_routes_route_fkey REFERENCES routes,
  since date,
  PRIMARY KEY (ship_id, route_id)
);
CREATE TABLE stops (
  route_id integer CONSTRAINT stops_route_fkey REFERENCES routes,
  port_id integer CONSTRAINT stops_port_fkey REFERENCES ports,
  seq integer NOT NULL,
  PRIMARY KEY (route_id, port_id)
);
CREATE TABLE detours (
  route_id integer CONSTRAINT detours_route_fkey REFERENCES routes,
  port_id integer CONSTRAINT detours_port_fkey REFERENCES ports,
  PRIMARY KEY (route_id, port_id)
);
INSERT INTO routes VALUES (1, 'Amber'), (2, 'Northern'), (3, 'Idle');
INSERT INTO ship_routes VALUES (1, 1, '2001-01-01'), (1, 2, '2003-01-01'), (2, 1, NULL), (5, 2, '2012-05-01');
INSERT INTO stops VALUES (1, 2, 1), (1, 5, 2), (1, 4, 3), (2, 1, 1), (2, 3, 2);
INSERT INTO detours VALUES (1, 3), (2, 5);

-- A foreign key of two columns.
CREATE TABLE voyages (
  ship_id integer CONSTRAINT voyages_ship_fkey REFERENCES ships,
  number integer,
  departed timestamptz NOT NULL,
  arrived timestamptz,
  miles numeric(8, 1),
  PRIMARY KEY (ship_id, number)
);
CREATE TABLE cargo (
  id integer PRIMARY KEY,
  goods text NOT NULL,
  tons numeric(8, 2),
  ship_id integer,
  voyage_no integer,
  CONSTRAINT cargo_voyage_fkey FOREIGN KEY (ship_id, voyage_no) REFERENCES voyages (ship_id, number)
);
INSERT INTO voyages VALUES
  (1, 1, '2024-03-01 06:00+00', '2024-03-01 18:30+00', 154.5), (1, 2, '2024-03-02 06:00+00', '2024-03-02 19:00+00', 154.5),
  (2, 1, '2024-02-10 00:15+00', '2024-02-15 12:00+00', 1210.0), (2, 2, '2024-03-05 08:00+00', NULL, NULL), (3, 1, '2024-01-31 23:59:59.5+00', '2024-02-01 04:00+00', 33.3);
INSERT INTO cargo VALUES
  (1, 'cars', 310.00, 1, 1), (2, 'timber', 120.75, 1, 1), (3, 'crude oil', 80000.00, 2, 1), (4, 'herring', 12.25, 3, 1), (5, 'letters', NULL, NULL, NULL), (6, 'cars', 55.00, 1, 2);

-- Two foreign keys each way between two tables.
CREATE TABLE clubs (
  id integer PRIMARY KEY,
  name text NOT NULL,
  chair_id integer
);
CREATE TABLE members (
  id integer PRIMARY KEY,
  name text NOT NULL,
  club_id integer CONSTRAINT members_club_fkey REFERENCES clubs
);
ALTER TABLE clubs ADD CONSTRAINT clubs_chair_fkey FOREIGN KEY (chair_id) REFERENCES members;
INSERT INTO clubs VALUES (1, 'Rowers', NULL), (2, 'Divers', NULL);
INSERT INTO members VALUES (1, 'Ulla', 1), (2, 'Viljo', 1), (3, 'Wanda', 2);
UPDATE clubs SET chair_id = 2 WHERE id = 1;

-- Every type that matters; one row with nothing.
CREATE TABLE samples (
  id integer PRIMARY KEY,
  small smallint,
  big bigint,
  num numeric,
  flt real,
  dbl double precision,
  flag boolean,
  txt text,
  vch varchar(20),
  chr char(3),
  stamp timestamptz,
  naive timestamp,
  day date,
  clock time,
  span interval,
  uid uuid,
  jb jsonb,
  js json,
  ints integer[],
  texts text[],
  irange int4range,
  nrange numrange,
  drange daterange,
  trange tstzrange,
  feel mood,
  tsv tsvector,
  addr inet,
  net cidr,
  bin bytea,
  zip postcode,
  pos above_zero,
  place spot
);
INSERT INTO samples VALUES
  (1, -5, 9007199254740993, 12.340, 0.5, 1.25, true, 'plain', 'short', 'ab', '2024-03-01 10:00:00+02', '2024-03-01 10:00:00', '2024-03-01', '08:30:00', '1 day 02:03:04',
   '6f1c2a9e-0d5b-4a53-9f0e-0b7c2f4d8a01', '{"a":1,"b":{"c":[10,20,30]},"s":"x"}', '{"z": 1,  "a": [true, null]}', '{1,2,3}', '{red,green}', '[1,10)', '[1.5,2.5]', '[2024-01-01,2024-02-01)',
   '["2024-01-01 00:00+00","2024-01-02 00:00+00")', 'calm', 'fat:1 cat:2', '10.0.0.1', '10.0.0.0/8', '\xdeadbeef', '20100', 7, '(60.4518,22.2666)'),
  (2, 0, -1, 0, -2.5, 'NaN', false, '', 'two words', 'xyz', '1999-12-31 23:59:59.123456+00', '1999-12-31 23:59:59.5', '1999-12-31', '23:59:59.5', '-3 mons',
   '00000000-0000-0000-0000-000000000000', '{"a":2,"b":{"c":[]},"s":"y z"}', '[1, 2]', '{}', '{"with,comma","with \"quote\"",NULL}', 'empty', '(,0]', '[1999-12-31,)',
   '(,"2000-01-01 00:00+00")', 'grim', 'rat:3', '::1', 'fe80::/10', '\x', '00001', 1, '(0,0)'),
  (3, 32767, 9223372036854775807, -0.001, 3.5, 'Infinity', NULL, 'O''Brien, "Pat" (x)\', 'ÅÄÖ', 'q', '2024-06-30 21:59:60+00', '2024-07-01 00:00:00', '2024-02-29', '00:00:00', '00:00:00',
   'ffffffff-ffff-ffff-ffff-ffffffffffff', '[{"a":3},{"a":4},null]', '"text"', '{3,NULL,5}', '{blue}', '[10,20)', '[2.5,9)', '[2024-02-01,2024-03-01)',
   '["2024-01-02 00:00+00","2024-01-03 00:00+00")', 'merry', 'cat:1 dog:2', '10.1.2.3/16', '192.168.0.0/24', '\x00ff', '99999', 2147483647, '(59.3293,)');
INSERT INTO samples (id) VALUES (4);

-- Text search.
CREATE TABLE articles (
  id integer PRIMARY KEY,
  title text NOT NULL,
  body text NOT NULL,
  lexemes tsvector,
  shadow words,
  meta jsonb
);
INSERT INTO articles (id, title, body, meta) VALUES
  (1, 'Harbours', 'The quiet harbour sleeps under heavy snow', '{"note":"winter storms"}'),
  (2, 'Lighthouses', 'A lighthouse keeper counts the passing ships', '{"note":"lamps and ships"}'),
  (3, 'Le port', 'Les bateaux dorment dans le port tranquille', '{"note":"bateaux"}'),
  (4, 'Sails', 'Sailing ships were counted by the keepers of lighthouses', NULL);
UPDATE articles SET lexemes = to_tsvector(CASE WHEN id = 3 THEN 'french' ELSE 'english' END::regconfig, body), shadow = to_tsvector('simple', body);

-- Names that want quoting.
CREATE TABLE "odd names" (
  id integer PRIMARY KEY,
  "a space" text,
  "quo""te" text,
  "dotted.col" text,
  "par(en)s" text,
  "com,ma" text,
  "col:on" text,
  "arrow->x" text,
  "back\slash" text,
  "MixedCase" text,
  "dash-ed" text,
  "do$lar" text,
  "größe" integer,
  "日本" text,
  "select" text,
  "order" integer,
  "limit" integer,
  "and" text,
  "or" text,
  "not" text,
  "is" boolean,
  "star*" text
);
CREATE TABLE "odd children" (
  "kid id" integer PRIMARY KEY,
  "odd id" integer CONSTRAINT "odd fk, (1)" REFERENCES "odd names",
  "na.me" text
);
CREATE TABLE "select" (id integer PRIMARY KEY, "from" text);
CREATE TABLE "order" (id integer PRIMARY KEY, "by" text, "select" integer CONSTRAINT order_select_fkey REFERENCES "select");
CREATE TABLE "one, (two).three" (id integer PRIMARY KEY, v text);
CREATE TABLE "Ärzte 日本" (id integer PRIMARY KEY, "naïve" text);
CREATE TABLE "it's ""quoted""; --" (id integer PRIMARY KEY);
CREATE TABLE "MixedCase" (id integer PRIMARY KEY);
-- Names that statements have of their own.
CREATE TABLE e1 (id integer PRIMARY KEY, q text, "row" integer CONSTRAINT e1_row_fkey REFERENCES e1);
INSERT INTO e1 VALUES (1, 'one', NULL), (2, 'two', 1);
INSERT INTO "odd names" VALUES
  (1, 'sp 1', 'q"1', 'd.1', 'p(1)', 'c,1', 'c:1', 'a->1', 'b\1', 'M1', 'da-1', '$1', 10, '一', 's1', 3, 30, 'and1', 'or1', 'not1', true, '*1'),
  (2, 'sp 2', 'q"2', 'd.2', 'p(2)', 'c,2', 'c:2', 'a->2', 'b\2', 'M2', 'da-2', '$2', 20, '二', 's2', 2, 20, 'and2', 'or2', 'not2', false, '*2'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 10, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "odd children" VALUES (1, 1, 'k.1'), (2, 1, 'k.2'), (3, 2, 'k.3');
INSERT INTO "select" VALUES (1, 'here'), (2, 'there');
INSERT INTO "order" VALUES (1, 'x', 2), (2, 'y', 1), (3, 'z', NULL);
INSERT INTO "one, (two).three" VALUES (1, 'odd'), (2, 'even');
INSERT INTO "Ärzte 日本" VALUES (1, 'ü'), (2, 'ñ');
INSERT INTO "it's ""quoted""; --" VALUES (1);
INSERT INTO "MixedCase" VALUES (1), (2);

-- Values that want quoting.
CREATE TABLE phrases (id integer PRIMARY KEY, said text);
INSERT INTO phrases VALUES
  (1, 'plain'), (2, 'comma, here'), (3, 'a (paren)'), (4, 'dot.dot'), (5, 'say "hi"'), (6, 'back\slash'), (7, 'it''s'), (8, '100%'), (9, 'under_score'), (10, '*star*'),
  (11, ''), (12, NULL), (13, 'null'), (14, 'a+b'), (15, 'a&b=c'), (16, 'ümlaut 日本 🚢'), (17, E'tab\there'), (18, E'line\nbreak'), (19, '{curly}'), (20, ' padded '),
  (21, 'eq.5'), (22, 'x:y'), (23, 'not.null'), (24, '''; DROP TABLE served.phrases; --');

-- 250 rows; nothing.
CREATE TABLE numbers (n integer PRIMARY KEY);
INSERT INTO numbers SELECT generate_series(1, 250);
CREATE TABLE sand (n integer PRIMARY KEY);
INSERT INTO sand SELECT generate_series(1, 20000);
CREATE TABLE empty_things (id integer PRIMARY KEY, name text);

-- Across schemas.
CREATE TABLE other.agents (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE contracts (
  id integer PRIMARY KEY,
  ship_id integer CONSTRAINT contracts_ship_fkey REFERENCES ships,
  agent_id integer CONSTRAINT contracts_agent_fkey REFERENCES other.agents
);
CREATE TABLE other.calls (
  id integer PRIMARY KEY,
  agent_id integer CONSTRAINT calls_agent_fkey REFERENCES other.agents,
  note text
);
CREATE TABLE other.numbers (n integer PRIMARY KEY);
INSERT INTO other.agents VALUES (1, 'Xenia'), (2, 'Yrsa');
INSERT INTO contracts VALUES (1, 1, 1), (2, 2, 1), (3, 5, NULL);
INSERT INTO other.calls VALUES (1, 1, 'rang'), (2, 1, NULL), (3, 2, 'wrote');
INSERT INTO other.numbers VALUES (-1), (-2);

-- Tables that are not served, seen through views.
CREATE TABLE hidden.berths (
  id integer PRIMARY KEY,
  label text NOT NULL,
  port_id integer CONSTRAINT berths_port_fkey REFERENCES served.ports
);
CREATE TABLE hidden.vault (id integer PRIMARY KEY, pin text);
INSERT INTO hidden.berths VALUES (1, 'A1', 1), (2, 'A2', 1), (3, 'B1', 4);
INSERT INTO hidden.vault VALUES (1, '0000');
CREATE VIEW berths AS SELECT id, label, port_id FROM hidden.berths;

-- Views: with all keys, with renamed keys, on a view, with a join, grouped; a materialized one.
CREATE VIEW fleet AS SELECT id, name, kind, owner_id, tonnage FROM ships WHERE tonnage >= 100;
CREATE VIEW fleet_renamed AS SELECT id AS ship_no, name AS ship_name, owner_id AS owned_by, home_port AS home FROM ships;
CREATE VIEW big_fleet AS SELECT id, name, owner_id FROM fleet WHERE tonnage > 50000;
CREATE VIEW owners_view AS SELECT id, name FROM owners;
CREATE VIEW ship_sheet AS
  SELECT s.id, s.name, o.name AS owner, p.name AS port FROM ships s LEFT JOIN owners o ON o.id = s.owner_id LEFT JOIN ports p ON p.id = s.home_port;
CREATE VIEW owner_fleets AS SELECT owner_id, count(*) AS ships, sum(tonnage) AS tonnage FROM ships GROUP BY owner_id;
CREATE MATERIALIZED VIEW port_traffic AS SELECT home_port AS port_id, count(*) AS ships, max(launched) AS newest FROM ships WHERE home_port IS NOT NULL GROUP BY home_port;

-- A computed field.
CREATE FUNCTION caption(ships) RETURNS text LANGUAGE sql STABLE AS $$ SELECT $1.name || ' (' || $1.kind || ')' $$;

-- Rows by claim and by role; and a table for one role only.
CREATE TABLE letters (
  id integer PRIMARY KEY,
  tenant text NOT NULL,
  written_by name NOT NULL,
  body text
);
INSERT INTO letters VALUES (1, 'north', 'clerk', 'a'), (2, 'north', 'boss', 'b'), (3, 'south', 'boss', 'c'), (4, 'south', 'anon', 'd'), (5, 'east', 'clerk', 'e');
ALTER TABLE letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE letters FORCE ROW LEVEL SECURITY;
CREATE POLICY of_the_tenant ON letters FOR SELECT TO clerk, boss
  USING (tenant = current_setting('request.jwt.claims', true)::json ->> 'tenant');
CREATE POLICY of_the_writer ON letters FOR SELECT TO PUBLIC USING (written_by = current_user);
CREATE TABLE payroll (id integer PRIMARY KEY, crew_id integer CONSTRAINT payroll_crew_fkey REFERENCES crew, sum numeric(8, 2));
INSERT INTO payroll VALUES (1, 1, 4000.00), (2, 2, 2500.50);
CREATE VIEW who AS SELECT current_user::text AS role, current_setting('request.jwt.claims', true)::json ->> 'tenant' AS tenant;

-- A partitioned table: it refers to another, and is referred to; one partition has a view of its own.
CREATE TABLE seasons (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE fares (
  id integer NOT NULL,
  season_id integer NOT NULL CONSTRAINT fares_season_fkey REFERENCES seasons,
  price numeric(8, 2),
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE TABLE fares_early PARTITION OF fares FOR VALUES FROM (1) TO (100);
CREATE TABLE fares_late PARTITION OF fares FOR VALUES FROM (100) TO (200);
CREATE TABLE refunds (id integer PRIMARY KEY, fare_id integer CONSTRAINT refunds_fare_fkey REFERENCES fares);
CREATE VIEW early_fares AS SELECT id, season_id FROM fares_early;
INSERT INTO seasons VALUES (1, 'low'), (2, 'high');
INSERT INTO fares VALUES (1, 1, 10.00), (2, 2, 20.00), (101, 2, 30.00);
INSERT INTO refunds VALUES (1, 2), (2, 101);

GRANT USAGE ON SCHEMA served, other TO anon, clerk, boss;
GRANT SELECT ON ALL TABLES IN SCHEMA served, other TO anon, clerk, boss;
REVOKE SELECT ON payroll FROM anon, clerk;
ANALYZE;
