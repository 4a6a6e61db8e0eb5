/** Verification against the real ClickHouse engine: what a run must have left is put there by hand, whole or damaged. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ClickHouseClient, createClient } from '@clickhouse/client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { openLedger } from '../../simulate/ledger.ts'
import { openStored, type StateDocument, type Stored } from '../../simulate/stored.ts'
import { type VerifyResult, verifyRun } from '../../simulate/verify.ts'
import { replayWorkload, syntheticWorkload, type Workload } from '../../simulate/workload.ts'
import { startClickHouse, type WholeClickHouse } from '../servers/clickhouse-server.ts'

const START = Date.UTC(2026, 10, 20, 12)

interface Row {
  readonly device: string
  readonly metric: string
  ts: number
  value: number | boolean
  received_at: number
}

let dir = ''
let clickhouse: WholeClickHouse
let writer: ClickHouseClient
let api: Server
let stored: Stored
const states = new Map<string, StateDocument>()

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'verify-'))
  clickhouse = await startClickHouse(dir)
  const { access } = clickhouse
  const migrating = openDatabase(access)
  await migrating.migrate()
  await migrating.close()
  writer = createClient({ url: access.url, username: access.user, password: access.password })
  api = createServer((request, response) => {
    if (request.url === '/metrics')
      return void response.end('telemetry_lag_readings 0\ntelemetry_messages_repeated_total 3\n')
    const state = states.get(request.url?.split('/').at(-1) ?? '')
    response.writeHead(state === undefined ? 404 : 200).end(JSON.stringify(state))
  }).listen(0, '127.0.0.1')
  await once(api, 'listening')
  stored = openStored(
    `http://127.0.0.1:${clickhouse.sqlPort}`,
    `http://127.0.0.1:${(api.address() as { port: number }).port}`,
  )
})

afterAll(async () => {
  await stored.close()
  await writer.close()
  await clickhouse.close()
  api.closeAllConnections()
  api.close()
  await rm(dir, { recursive: true })
})

/** Everything sent and acknowledged, and the rows and states that it must have left. */
function runOf(workload: Workload): { ledger: ReturnType<typeof openLedger>; rows: Row[] } {
  const ledger = openLedger(workload.total)
  const rows: Row[] = []
  for (let n = 0; n < workload.total; n++) {
    const ts = workload.timeOf(n, START + n)
    ledger.sent(n, ts)
    ledger.acked(n)
    const device = workload.devices[workload.deviceOf(n)] ?? ''
    for (const [metric, value] of workload.readings(n)) {
      rows.push({ device, metric, ts, value: JSON.parse(value) as number | boolean, received_at: START + n })
    }
  }
  for (const row of rows) {
    const metrics = { ...states.get(row.device)?.metrics }
    const shown = metrics[row.metric]
    if (shown !== undefined && Date.parse(shown.ts) > row.ts) continue
    metrics[row.metric] = { value: row.value, ts: new Date(row.ts).toISOString() }
    states.set(row.device, { metrics })
  }
  return { ledger, rows }
}

const COLUMNS = `device, metric, ts, kind, value, value_str, received_delta, sent_delta,
  source, source_position, source_index`

async function insert(rows: readonly Row[]): Promise<void> {
  const values = rows.map(row => {
    const kind = typeof row.value === 'boolean' ? 'bool' : 'number'
    const times = `fromUnixTimestamp64Milli(${row.ts}, 'UTC'), '${kind}', ${Number(row.value)}, ''`
    const source = `${(row.received_at - row.ts) * 1_000}, 0, 'test', 0, 0`
    return `('${row.device}', '${row.metric}', ${times}, ${source})`
  })
  await writer.command({ query: `INSERT INTO telemetry.readings (${COLUMNS}) VALUES ${values.join(', ')}` })
}

function verify(workload: Workload, ledger: ReturnType<typeof openLedger>, storedBefore = 0): Promise<VerifyResult> {
  return verifyRun({ workload, ledger, stored, storedBefore, repeatedBefore: 0, waitMsMax: 100, progress: () => {} })
}

function steady(run: string): Workload {
  return syntheticWorkload({ scenario: 'steady', devices: 2, total: 8, seed: 1, run })
}

test('a run that is stored once and unchanged is verified, with its states and rollups', async () => {
  const workload = steady('sim-clean')
  const { ledger, rows } = runOf(workload)
  await insert(rows)
  const run = { workload, ledger, stored, storedBefore: 0, repeatedBefore: 1 }
  expect(await verifyRun({ ...run, waitMsMax: 120_000, progress: () => {} })).toMatchObject({
    ok: true,
    settled: true,
    acked: 24,
    stored: 24,
    states_compared: 6,
    states_wrong: 0,
    latest_wrong: 0,
    taken_for_repetitions: 2,
    rollup_readings: { minutely: 24, hourly: 24 },
  })
})

const DAMAGES: [what: string, found: Partial<VerifyResult>, damage: (rows: Row[]) => Row[]][] = [
  ['lost', { lost: 1 }, rows => rows.slice(1)],
  ['duplicated', { duplicated: 1 }, rows => [...rows, rows[0] as Row]],
  ['changed', { changed: 1 }, ([first, ...rest]) => [{ ...(first as Row), value: 1.5 }, ...rest]],
  ['phantom', { phantom: 1 }, rows => [...rows, { ...(rows[0] as Row), ts: START - 5 }]],
]

test.each(DAMAGES)('a reading that is %s is told, and the run is not verified', async (what, found, damage) => {
  const workload = steady(`sim-${what}`)
  const { ledger, rows } = runOf(workload)
  await insert(damage(rows))
  const none = { lost: 0, duplicated: 0, changed: 0, phantom: 0 }
  expect(await verify(workload, ledger)).toMatchObject({ ok: false, ...none, ...found })
})

test('a state that is not the newest stored reading is told', async () => {
  const workload = steady('sim-state')
  const { ledger, rows } = runOf(workload)
  await insert(rows)
  const device = workload.devices[1] ?? ''
  const counter = { value: 1, ts: new Date(START + 1).toISOString() }
  states.set(device, { metrics: { ...states.get(device)?.metrics, counter } })
  expect(await verify(workload, ledger)).toMatchObject({ ok: false, lost: 0, states_compared: 6, states_wrong: 1 })
})

test('readings of one second whose receipts lost the order of sending are told, and so is what latest shows then', async () => {
  const workload = syntheticWorkload({ scenario: 'toggle', devices: 1, total: 5, seed: 1, run: 'sim-order' })
  const { ledger, rows } = runOf(workload)
  const [late, last] = rows.slice(-2) as [Row, Row]
  await insert([...rows.slice(0, -2), { ...late, received_at: START + 9 }, last])
  const swapped = { ok: false, lost: 0, duplicated: 0, misordered: 1, states_wrong: 0, latest_wrong: 1 }
  expect(await verify(workload, ledger)).toMatchObject(swapped)
})

test('a replay is compared with its files, and leaves out what its devices sent at other times', async () => {
  const times = [START - 86_400_000, START - 86_000_000, START - 85_940_000]
  const workload = replayWorkload([{ device: 'press-17', times, values: ['1.50', '-2', '0.1'] }])
  const { ledger, rows } = runOf(workload)
  await insert([...rows, { device: 'press-17', metric: 'speed', ts: START - 90_000_000, value: 3, received_at: START }])
  states.set('press-17', {
    metrics: {
      ...states.get('press-17')?.metrics,
      speed: { value: 3, ts: new Date(START - 90_000_000).toISOString() },
    },
  })
  const result = await verify(workload, ledger)
  expect(result).toMatchObject({ ok: true, acked: 3, stored: 3, states_compared: 2, rollup_readings: null })
  const totals = { count: 3, min: -2, max: 1.5 }
  expect(result.series).toMatchObject([
    { device: 'press-17', table: { ...totals, last: 0.1 }, minutely: totals, hourly: totals },
  ])

  await insert(rows)
  const again = await verify(workload, ledger, 4)
  expect(again).toMatchObject({ ok: false, duplicated: 3 })
  expect(again.hint).toContain('fresh data directory')
})
