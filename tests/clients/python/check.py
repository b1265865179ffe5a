"""Asks an endpoint that serves fixture.sql with the Python client that Supabase wrote: check.py URL [TOKEN]

Exit code 1 and a line for each thing that is not as PostgREST answers it.
"""

import base64
import json
import sys

from postgrest import APIError, CountMethod, SyncPostgrestClient

if len(sys.argv) < 2:
    sys.exit("usage: check.py URL [TOKEN]")
url, token = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
headers = {"Authorization": f"Bearer {token}"} if token else {}
db = SyncPostgrestClient(url, schema="served", headers=headers)
checks = []


def check(what):
    def keep(how):
        checks.append((what, how))
        return how

    return keep


def rows(asked):
    return asked.execute().data


def ids(asked):
    return [row["id"] for row in rows(asked)]


def refused(asked):
    """The error of the endpoint; an answer is a mistake."""
    try:
        answer = asked.execute()
    except APIError as error:
        return error
    raise AssertionError(f"expected an error, got {answer.data}")


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, not {wanted!r}")


@check("select with a new name and a cast")
def _():
    same(rows(db.from_("owners").select("owner:name", "rating::text").eq("id", 2)), [{"owner": "Bertil", "rating": "3.0"}])


@check("eq, neq, gt, gte, lt, lte")
def _():
    def ships():
        return db.from_("ships").select("id").order("id")

    same(ids(ships().eq("kind", "ferry")), [1, 5])
    same(ids(ships().neq("owner_id", 1)), [2, 5, 6, 8])
    same(ids(ships().gt("tonnage", 16000)), [2, 6])
    same(ids(ships().gte("tonnage", 16000)), [2, 5, 6])
    same(ids(ships().lt("tonnage", 60)), [4])
    same(ids(ships().lte("tonnage", 60)), [4, 8])


@check("like, ilike")
def _():
    same(ids(db.from_("ships").select("id").like("name", "%an%").order("id")), [3, 7])
    same(ids(db.from_("ships").select("id").ilike("name", "H%")), [8])


@check("is, not is")
def _():
    same(ids(db.from_("ships").select("id").is_("owner_id", "null").order("id")), [4, 7])
    same(ids(db.from_("ships").select("id").not_.is_("owner_id", "null").order("id")), [1, 2, 3, 5, 6, 8])


@check("in, with values that want quotes")
def _():
    same(ids(db.from_("phrases").select("id").in_("said", ["comma, here", "a (paren)", "plain"]).order("id")), [1, 2, 3])


@check("or, and within it")
def _():
    same(ids(db.from_("ships").select("id").or_("id.eq.1,and(kind.eq.yacht,tonnage.lt.50)").order("id")), [1, 4])


@check("match: several columns at once")
def _():
    same(ids(db.from_("ships").select("id").match({"kind": "ferry", "owner_id": 4})), [5])


@check("contains, contained_by, overlaps")
def _():
    same(ids(db.from_("ships").select("id").contains("tags", ["fast", "white"]).order("id")), [4, 8])
    same(ids(db.from_("ships").select("id").contained_by("tags", ["slow", "old", "night"]).order("id")), [2, 3, 6, 7])
    same(ids(db.from_("ships").select("id").ov("tags", ["night", "old"]).order("id")), [1, 6, 7])


@check("contains on jsonb")
def _():
    same(ids(db.from_("ships").select("id").contains("specs", {"decks": 2}).order("id")), [2, 6])


@check("ranges")
def _():
    same(ids(db.from_("samples").select("id").sl("irange", (10, 12)).order("id")), [1])
    same(ids(db.from_("samples").select("id").adj("irange", (19, 30)).order("id")), [3])


@check("full text")
def _():
    same(ids(db.from_("articles").select("id").fts("lexemes", "ship").order("id")), [2, 4])
    same(ids(db.from_("articles").select("id").wfts("lexemes", "harbour or ships -passing").order("id")), [1, 4])


@check("order, nulls placed")
def _():
    same(ids(db.from_("owners").select("id").order("rating", desc=True, nullsfirst=False).order("id", desc=True)), [4, 1, 2, 3])


@check("limit, offset, range")
def _():
    same(rows(db.from_("numbers").select("n").order("n").limit(2).offset(5)), [{"n": 6}, {"n": 7}])
    same(rows(db.from_("numbers").select("n").order("n").range(10, 11)), [{"n": 11}, {"n": 12}])


@check("count exact, with rows")
def _():
    answer = db.from_("numbers").select("n", count=CountMethod.exact).order("n").limit(1).execute()
    same((answer.count, answer.data), (250, [{"n": 1}]))


@check("count exact, head only")
def _():
    same(db.from_("numbers").select("*", count=CountMethod.exact, head=True).gt("n", 240).execute().count, 10)


@check("single")
def _():
    same(rows(db.from_("owners").select("name").eq("id", 3).single()), {"name": "Cecilia"})


@check("single of none")
def _():
    error = refused(db.from_("owners").select("name").eq("id", 99).single())
    same((error.code, error.details), ("PGRST116", "The result contains 0 rows"))


@check("maybe_single")
def _():
    same(rows(db.from_("owners").select("name").eq("id", 3).maybe_single()), {"name": "Cecilia"})
    same(db.from_("owners").select("name").eq("id", 99).maybe_single().execute(), None)


@check("csv")
def _():
    same(rows(db.from_("owners").select("id", "name").lte("id", 2).order("id").csv()), "id,name\n1,Aino\n2,Bertil")


@check("embed, many to one")
def _():
    same(rows(db.from_("ships").select("id,owners(name)").in_("id", [1, 4]).order("id")), [{"id": 1, "owners": {"name": "Aino"}}, {"id": 4, "owners": None}])


@check("embed, one to many, ordered and limited")
def _():
    asked = db.from_("owners").select("name,ships(id)").lte("id", 2).order("id").order("id", desc=True, foreign_table="ships").limit(1, foreign_table="ships")
    same(rows(asked), [{"name": "Aino", "ships": [{"id": 3}]}, {"name": "Bertil", "ships": [{"id": 6}]}])


@check("embed, many to many")
def _():
    same(rows(db.from_("ships").select("id,routes(name)").eq("id", 2)), [{"id": 2, "routes": [{"name": "Amber"}]}])


@check("inner embed with a filter")
def _():
    same(ids(db.from_("ships").select("id,owners!inner(name)").eq("owners.name", "Bertil").order("id")), [2, 6])


@check("or on the embedded")
def _():
    asked = db.from_("owners").select("id,ships(id)").eq("id", 2).or_("kind.eq.yacht,tonnage.gt.90000", reference_table="ships")
    same(rows(asked), [{"id": 2, "ships": [{"id": 6}]}])


@check("another schema")
def _():
    same(rows(db.schema("other").from_("agents").select("name").order("id")), [{"name": "Xenia"}, {"name": "Yrsa"}])
    db.schema("served")


@check("errors: unknown relation")
def _():
    same(refused(db.from_("nowhere").select("*")).code, "PGRST205")


@check("errors: unknown column")
def _():
    error = refused(db.from_("owners").select("nope"))
    same((error.code, error.message), ("42703", "column owners.nope does not exist"))


@check("errors: ambiguous embed")
def _():
    error = refused(db.from_("ships").select("id,ports(name)"))
    same((error.code, len(error.details)), ("PGRST201", 2))


@check("writing is refused")
def _():
    refused(db.from_("owners").insert({"id": 9, "name": "x"}))
    refused(db.from_("owners").update({"name": "x"}).eq("id", 1))
    refused(db.from_("owners").delete().eq("id", 1))
    same(rows(db.from_("owners").select("name").eq("id", 1)), [{"name": "Aino"}])


if token:

    @check("the token's role is the database's")
    def _():
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        same(rows(db.from_("who").select("*").single()), {"role": claims["role"], "tenant": claims.get("tenant")})


failed = 0
for what, how in checks:
    try:
        how()
    except Exception as problem:  # every check is to be tried
        failed += 1
        print(f"postgrest-py: {what}: {type(problem).__name__} {problem}", file=sys.stderr)
print(f"postgrest-py: {len(checks) - failed} of {len(checks)} as expected")
sys.exit(1 if failed else 0)
