// Asks an endpoint that serves fixture.sql with Supabase's client: node check.mjs URL [TOKEN]
// Exit code 1 and a line for each thing that is not as PostgREST answers it.
import assert from 'node:assert/strict'
import { PostgrestClient } from '@supabase/postgrest-js'

const [url, token] = process.argv.slice(2)
if (!url) {
  console.error('usage: node check.mjs URL [TOKEN]')
  process.exit(2)
}
const headers = token ? { Authorization: `Bearer ${token}` } : {}
const db = new PostgrestClient(url, { schema: 'served', headers })

const checks = []
const check = (what, how) => checks.push([what, how])
/** The rows; an error is thrown. */
const rows = async (asked) => {
  const answer = await asked
  if (answer.error) throw new Error(`${answer.status} ${JSON.stringify(answer.error)}`)
  return answer.data
}
/** The error; rows are a mistake. */
const refusal = async (asked) => {
  const answer = await asked
  assert.ok(answer.error, `expected an error, got ${JSON.stringify(answer.data)}`)
  assert.equal(answer.data, null)
  return { status: answer.status, ...answer.error }
}
const ids = (found) => found.map((row) => row.id)

check('select all columns', async () =>
  assert.deepEqual(await rows(db.from('owners').select().eq('id', 1)), [{ id: 1, name: 'Aino', rating: 4.5 }]))
check('select some columns, with a new name and a cast', async () =>
  assert.deepEqual(await rows(db.from('owners').select('owner:name,rating::text').eq('id', 2)), [{ owner: 'Bertil', rating: '3.0' }]))
check('eq, neq, gt, gte, lt, lte', async () => {
  const ships = () => db.from('ships').select('id').order('id')
  assert.deepEqual(ids(await rows(ships().eq('kind', 'ferry'))), [1, 5])
  assert.deepEqual(ids(await rows(ships().neq('owner_id', 1))), [2, 5, 6, 8])
  assert.deepEqual(ids(await rows(ships().gt('tonnage', 16000))), [2, 6])
  assert.deepEqual(ids(await rows(ships().gte('tonnage', 16000))), [2, 5, 6])
  assert.deepEqual(ids(await rows(ships().lt('tonnage', 60))), [4])
  assert.deepEqual(ids(await rows(ships().lte('tonnage', 60))), [4, 8])
})
check('like, ilike', async () => {
  assert.deepEqual(ids(await rows(db.from('ships').select('id').like('name', '%an%').order('id'))), [3, 7])
  assert.deepEqual(ids(await rows(db.from('ships').select('id').ilike('name', 'H%'))), [8])
})
check('likeAnyOf, ilikeAllOf', async () => {
  assert.deepEqual(ids(await rows(db.from('ships').select('id').likeAnyOf('name', ['A%', '%t']).order('id'))), [1, 3, 7])
  assert.deepEqual(ids(await rows(db.from('ships').select('id').ilikeAllOf('name', ['%e%', '%R%']).order('id'))), [5, 8])
})
check('is', async () => {
  assert.deepEqual(ids(await rows(db.from('ships').select('id').is('owner_id', null).order('id'))), [4, 7])
  assert.deepEqual(ids(await rows(db.from('samples').select('id').is('flag', true))), [1])
})
check('in, with values that want quotes', async () => {
  assert.deepEqual(ids(await rows(db.from('ships').select('id').in('id', [1, 3, 5]).order('id'))), [1, 3, 5])
  assert.deepEqual(ids(await rows(db.from('phrases').select('id').in('said', ['comma, here', 'a (paren)', 'plain']).order('id'))), [1, 2, 3])
})
check('not', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id').not('owner_id', 'is', null).order('id'))), [1, 2, 3, 5, 6, 8]))
check('or, and within it', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id').or('id.eq.1,and(kind.eq.yacht,tonnage.lt.50)').order('id'))), [1, 4]))
check('match: several columns at once', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id').match({ kind: 'ferry', owner_id: 4 }))), [5]))
check('filter: any operator', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id').filter('name', 'imatch', '^(a|h)').order('id'))), [1, 8]))
check('contains, containedBy, overlaps on arrays', async () => {
  const ships = () => db.from('ships').select('id').order('id')
  assert.deepEqual(ids(await rows(ships().contains('tags', ['fast', 'white']))), [4, 8])
  assert.deepEqual(ids(await rows(ships().containedBy('tags', ['slow', 'old', 'night']))), [2, 3, 6, 7])
  assert.deepEqual(ids(await rows(ships().overlaps('tags', ['night', 'old']))), [1, 6, 7])
})
check('contains on jsonb', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id').contains('specs', { decks: 2 }).order('id'))), [2, 6]))
check('ranges: contains, rangeLt, rangeGt, rangeAdjacent', async () => {
  const samples = () => db.from('samples').select('id').order('id')
  assert.deepEqual(ids(await rows(samples().contains('irange', '[2,4)'))), [1])
  assert.deepEqual(ids(await rows(samples().rangeLt('irange', '[10,12)'))), [1])
  assert.deepEqual(ids(await rows(samples().rangeGt('irange', '[0,5)'))), [3])
  assert.deepEqual(ids(await rows(samples().rangeAdjacent('irange', '[20,30)'))), [3])
})
check('textSearch: plain, phrase, websearch, by language', async () => {
  const articles = () => db.from('articles').select('id').order('id')
  assert.deepEqual(ids(await rows(articles().textSearch('lexemes', 'ship'))), [2, 4])
  assert.deepEqual(ids(await rows(articles().textSearch('lexemes', 'the lighthouse keepers', { type: 'plain', config: 'english' }))), [2, 4])
  assert.deepEqual(ids(await rows(articles().textSearch('lexemes', 'lighthouse keeper', { type: 'phrase', config: 'english' }))), [2])
  assert.deepEqual(ids(await rows(articles().textSearch('lexemes', 'harbour or ships -passing', { type: 'websearch', config: 'english' }))), [1, 4])
  assert.deepEqual(ids(await rows(articles().textSearch('body', 'sail', { config: 'english' }))), [4])
})
check('JSON paths in select, filter and order', async () =>
  assert.deepEqual(
    await rows(db.from('ships').select('id,specs->engine->>fuel').gt('specs->engine->kw', 5000).order('specs->engine->kw', { ascending: false })),
    [{ id: 6, fuel: 'diesel' }, { id: 2, fuel: 'lng' }, { id: 1, fuel: 'diesel' }]))
check('order: descending, nulls placed, two columns', async () => {
  assert.deepEqual(ids(await rows(db.from('owners').select('id').order('rating', { ascending: false, nullsFirst: false }).order('id', { ascending: false }))), [4, 1, 2, 3])
  assert.deepEqual(ids(await rows(db.from('owners').select('id').order('rating', { nullsFirst: true }).order('id'))), [3, 2, 1, 4])
})
check('limit', async () => assert.deepEqual(await rows(db.from('numbers').select('n').order('n').limit(2)), [{ n: 1 }, { n: 2 }]))
check('range', async () => assert.deepEqual(await rows(db.from('numbers').select('n').order('n').range(10, 12)), [{ n: 11 }, { n: 12 }, { n: 13 }]))
check('count exact, with rows', async () => {
  const answer = await db.from('numbers').select('n', { count: 'exact' }).order('n').range(0, 1)
  assert.equal(answer.status, 206)
  assert.equal(answer.count, 250)
  assert.deepEqual(answer.data, [{ n: 1 }, { n: 2 }])
})
check('count exact, head only', async () => {
  const answer = await db.from('numbers').select('*', { count: 'exact', head: true }).gt('n', 240)
  assert.equal(answer.error, null)
  assert.equal(answer.count, 10)
  assert.equal(answer.data, null)
})
check('count planned and estimated', async () => {
  for (const count of ['planned', 'estimated']) {
    const answer = await db.from('numbers').select('*', { count, head: true })
    assert.equal(answer.count, 250, count)
  }
})
check('a range beyond the end, counted: 416', async () => {
  const error = await refusal(db.from('owners').select('id', { count: 'exact' }).range(100, 110))
  assert.equal(error.status, 416)
  assert.equal(error.code, 'PGRST103')
})
check('single', async () => assert.deepEqual(await rows(db.from('owners').select('name').eq('id', 3).single()), { name: 'Cecilia' }))
check('single of none and of many: 406', async () => {
  const none = await refusal(db.from('owners').select('name').eq('id', 99).single())
  assert.equal(none.status, 406)
  assert.equal(none.code, 'PGRST116')
  assert.equal(none.details, 'The result contains 0 rows')
  const many = await refusal(db.from('owners').select('name').single())
  assert.equal(many.code, 'PGRST116')
  assert.equal(many.details, 'The result contains 4 rows')
})
check('maybeSingle', async () => {
  assert.deepEqual(await rows(db.from('owners').select('name').eq('id', 3).maybeSingle()), { name: 'Cecilia' })
  const none = await db.from('owners').select('name').eq('id', 99).maybeSingle()
  assert.equal(none.error, null)
  assert.equal(none.data, null)
  assert.equal((await refusal(db.from('owners').select('name').maybeSingle())).code, 'PGRST116')
})
check('csv', async () =>
  assert.equal(await rows(db.from('owners').select('id,name').lte('id', 2).order('id').csv()), 'id,name\n1,Aino\n2,Bertil'))
check('embed, many to one', async () =>
  assert.deepEqual(await rows(db.from('ships').select('id,owners(name)').in('id', [1, 4]).order('id')), [{ id: 1, owners: { name: 'Aino' } }, { id: 4, owners: null }]))
check('embed, one to many, ordered and limited', async () =>
  assert.deepEqual(
    await rows(db.from('owners').select('name,ships(name)').order('id').order('tonnage', { referencedTable: 'ships', ascending: false, nullsFirst: false }).limit(1, { referencedTable: 'ships' })),
    [{ name: 'Aino', ships: [{ name: 'Albatross' }] }, { name: 'Bertil', ships: [{ name: 'Fulmar' }] }, { name: 'Cecilia', ships: [] }, { name: 'Dario', ships: [{ name: 'Eider' }] }]))
check('embed, one to one', async () =>
  assert.deepEqual(await rows(db.from('ships').select('id,captains(name)').eq('id', 2)), [{ id: 2, captains: { name: 'Brita' } }]))
check('embed, many to many', async () =>
  assert.deepEqual(await rows(db.from('ships').select('id,routes(name)').eq('id', 1).order('id', { referencedTable: 'routes' })), [{ id: 1, routes: [{ name: 'Amber' }, { name: 'Northern' }] }]))
check('embed within an embed, by hint', async () =>
  assert.deepEqual(
    await rows(db.from('crew').select('name,ships(name,home:ports!ships_home_port_fkey(name))').eq('id', 7)),
    [{ name: 'Sven', ships: { name: 'Cormorant', home: { name: 'Gdynia' } } }]))
check('inner embed with a filter', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id,owners!inner(name)').eq('owners.name', 'Bertil').order('id'))), [2, 6]))
check('or on the embedded', async () =>
  assert.deepEqual(
    await rows(db.from('owners').select('id,ships(id)').eq('id', 2).or('kind.eq.yacht,tonnage.gt.90000', { referencedTable: 'ships' })),
    [{ id: 2, ships: [{ id: 6 }] }]))
check('spread', async () =>
  assert.deepEqual(await rows(db.from('ships').select('id,...owners(owner:name)').eq('id', 1)), [{ id: 1, owner: 'Aino' }]))
check('spread of many', async () =>
  assert.deepEqual(await rows(db.from('owners').select('id,...ships(names:name)').eq('id', 2).order('id', { referencedTable: 'ships' })), [{ id: 2, names: ['Beluga', 'Fulmar'] }]))
check('rows in the order of the embedded', async () =>
  assert.deepEqual(ids(await rows(db.from('ships').select('id,owners!inner(name)').order('owners(name)', { ascending: false }).order('id'))), [5, 8, 2, 6, 1, 3]))
check('rows without an embedded row', async () =>
  assert.deepEqual(ids(await rows(db.from('owners').select('id,ships()').is('ships', null))), [3]))
check('aggregates', async () =>
  assert.deepEqual(await rows(db.from('ships').select('kind,count(),tonnage.max()').order('kind').limit(2)), [{ kind: 'ferry', count: 2, max: 16000 }, { kind: 'tanker', count: 2, max: 91000 }]))
check('a view and a materialized view', async () => {
  assert.deepEqual(await rows(db.from('fleet').select('name,owners(name)').eq('id', 2)), [{ name: 'Beluga', owners: { name: 'Bertil' } }])
  assert.deepEqual(await rows(db.from('port_traffic').select('ships').eq('port_id', 4)), [{ ships: 2 }])
})
check('another schema', async () =>
  assert.deepEqual(await rows(db.schema('other').from('agents').select('name').order('id')), [{ name: 'Xenia' }, { name: 'Yrsa' }]))
check('a relation with an odd name', async () =>
  assert.deepEqual(await rows(db.from('odd names').select('id,"dotted.col"').eq('"dotted.col"', 'd.2')), [{ id: 2, 'dotted.col': 'd.2' }]))
check('an abort signal', async () => {
  const stop = new AbortController()
  stop.abort()
  const answer = await db.from('numbers').select().abortSignal(stop.signal)
  assert.ok(answer.error, 'aborted, and yet answered')
  assert.match(`${answer.error.message} ${answer.error.details}`, /abort/i)
})
check('errors: unknown relation', async () => {
  const error = await refusal(db.from('nowhere').select())
  assert.equal(error.status, 404)
  assert.equal(error.code, 'PGRST205')
  assert.ok('message' in error && 'details' in error && 'hint' in error)
})
check('errors: unknown column', async () => {
  const error = await refusal(db.from('owners').select('nope'))
  assert.equal(error.status, 400)
  assert.equal(error.code, '42703')
  assert.equal(error.message, 'column owners.nope does not exist')
})
check('errors: ambiguous embed', async () => {
  const error = await refusal(db.from('ships').select('id,ports(name)'))
  assert.equal(error.status, 300)
  assert.equal(error.code, 'PGRST201')
  assert.equal(error.details.length, 2)
  assert.match(error.hint, /ports!ships_home_port_fkey/)
})
check('errors: no relationship', async () => assert.equal((await refusal(db.from('ships').select('id,numbers(n)'))).code, 'PGRST200'))
check('errors: a schema that is not served', async () => {
  const error = await refusal(db.schema('hidden').from('vault').select())
  assert.equal(error.status, 406)
  assert.equal(error.code, 'PGRST106')
})
check('throwOnError', async () => {
  await assert.rejects(async () => db.from('nowhere').select().throwOnError(), (thrown) => thrown.code === 'PGRST205')
})
check('writing is refused', async () => {
  for (const asked of [db.from('owners').insert({ id: 9, name: 'x' }), db.from('owners').update({ name: 'x' }).eq('id', 1), db.from('owners').upsert({ id: 1, name: 'x' }), db.from('owners').delete().eq('id', 1)]) {
    assert.equal((await refusal(asked)).status, 405)
  }
  assert.deepEqual(await rows(db.from('owners').select('name').eq('id', 1)), [{ name: 'Aino' }])
})
if (token)
  check("the token's role is the database's", async () => {
    const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString())
    assert.deepEqual(await rows(db.from('who').select().single()), { role: claims.role, tenant: claims.tenant ?? null })
  })

let failed = 0
for (const [what, how] of checks) {
  try {
    await how()
  } catch (problem) {
    failed += 1
    console.error(`postgrest-js: ${what}: ${problem.message}`)
  }
}
console.log(`postgrest-js: ${checks.length - failed} of ${checks.length} as expected`)
process.exit(failed ? 1 : 0)
