/**
 * Measures a rebuild of the state in memory from ClickHouse: `node dist/test/readers/measure-rebuild.js [devices]`, five metrics
 * each. Prints the seconds of each of three rebuilds, and what the process takes afterwards, as the kernel sees it.
 */
import { readFileSync } from 'node:fs'
import type { PumpView } from '../../pump/pump.ts'
import { rebuildState } from '../../readers/rehydrate.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import { openFixture } from '../database/database-fixture.ts'

const DEVICES = Number(process.argv[2] ?? 1_000_000)
const METRICS = ['temperature', 'pressure', 'vibration.x', 'vibration.y', 'rpm']
const ROUNDS = 3
const NEVER = new AbortController().signal

const { database, writer, close } = await openFixture()
await database.migrate()
const columns =
  'device, metric, ts, kind, value, value_str, received_delta, sent_delta, source, source_position, source_index'
for (const [index, metric] of METRICS.entries()) {
  await writer.command({
    query: `INSERT INTO telemetry.readings (${columns}) SELECT concat('press-', leftPad(toString(number), 7, '0')), '${metric}',
      fromUnixTimestamp64Micro(toInt64(1763640000123000 + number % 60000000)), 'number', number / 7, '', 20000, 0, 'log/0', ${index}, number
      FROM numbers(${DEVICES})`,
  })
}
// A rebuild looks at the log, too: here it is empty.
const view = { places: async () => [] } as unknown as PumpView
const seconds: string[] = []
for (let round = 0; round < ROUNDS; round++) {
  const space = openMemorySpace({ devicesMax: DEVICES })
  const since = performance.now()
  const { metrics } = await rebuildState({ space, database, view }, NEVER)
  seconds.push(((performance.now() - since) / 1_000).toFixed(2))
  if (metrics !== DEVICES * METRICS.length) throw new Error(`${metrics} metrics are there.`)
  if (round === ROUNDS - 1) print(space)
}
await close()

/** The space is held until it is measured. */
function print(space: object): void {
  globalThis.gc?.()
  const rss = /VmRSS:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  process.stdout.write(
    `${DEVICES} devices: rebuilt in ${seconds.join(', ')} s, VmRSS ${Math.round(Number(rss) / 1024)} MB\n`,
  )
  if (space === null) throw new Error('It is held.')
}
