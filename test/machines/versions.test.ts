/**
 * Two versions side by side on real servers: an upgrade in the right order, under load, loses nothing and doubles nothing,
 * and the state is right at each step; the wrong order is refused with a sentence that says the right one.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openFleet } from '../../bench/generator.ts'
import { SCHEMA_VERSION } from '../../manager/build-info.ts'
import { check, holds, openJournal } from '../crash/checker.ts'
import { kafkaHere } from '../servers/kafka-server.ts'
import { redisHere } from '../servers/redis-server.ts'
import { readKnown } from '../upgrade/packed.ts'
import { until } from '../waits.ts'
import { openTwoVersions, type Process, portsOf, type TwoVersions } from './two-versions.ts'

const OLD = 'b556fd9'
const OLD_SCHEMA = readKnown(`${OLD}-ended`).schema
const DEVICES = 60
const RATE = 300
const STEP_MS = 1_500
/** In flight of a device. The old broker counts receipts in ms: it knows no order of two within one, as a busy machine sends them. */
const WINDOW = 1
const UNREAD = 'the log could not be read for a client of another broker'
const ORDER = 'upgrade the writers and readers first, then the brokers'

describe.skipIf(!kafkaHere || !redisHere)(`processes of ${OLD} and of today`, () => {
  let machines: TwoVersions
  /** Those that serve now. */
  let brokers: Process[]
  let [writer, reader, api]: Process[] = []
  beforeAll(async () => {
    machines = await openTwoVersions(`${OLD}-build`)
    brokers = [machines.start('old', 'broker'), machines.start('old', 'broker')]
    ;[writer, reader, api] = (['writer', 'reader', 'api'] as const).map(role => machines.start('old', role))
    for (const broker of brokers) machines.balance(broker)
    await Promise.all([...brokers, writer, reader, api].map(part => part?.ready()))
  })
  afterAll(() => machines?.close())

  it('those of today find the old ones at work', async () => {
    await underLoad('before', async () => {})
  })

  it('a new broker does not begin while an old writer lives: it says the order, and nothing is disturbed [G1] [G7]', async () => {
    await underLoad('wrong-order', async () => {
      const early = machines.start('new', 'broker')
      expect(await early.ended()).toBe(1)
      expect(early.output()).toContain(`${ORDER}. [upgrade_order]`)
    })
  })

  it('a new writer waits until the old one has ended before it touches the tables [G2]', async () => {
    await underLoad('writers', async () => {
      const next = machines.start('new', 'writer')
      await until(() => next.output().includes('waiting for older writers to end'), 'it waits')
      await pause(STEP_MS)
      expect(await schema()).toBe(OLD_SCHEMA)
      expect(await writer?.stop()).toBe(0)
      await until(async () => (await schema()) === SCHEMA_VERSION, 'the tables are changed')
      await next.ready()
      writer = next
    })
  })

  it('an old writer that comes back ends, and has changed no table', async () => {
    const before = await tables()
    const late = machines.start('old', 'writer')
    expect(await late.ended()).toBe(1)
    expect(late.output()).toContain('[database_')
    expect(await tables()).toEqual(before)
    expect(await schema()).toBe(SCHEMA_VERSION)
  })

  it('a new reader and a new API take over from old ones: state and history are the same [G4]', async () => {
    await underLoad('readers', async () => {
      const next = (['reader', 'api'] as const).map(role => machines.start('new', role))
      await Promise.all(next.map(part => part.ready()))
      expect(await Promise.all([reader?.stop(), api?.stop()])).toEqual([0, 0])
      ;[reader, api] = next
    })
  })

  it('brokers are replaced one after the other, while devices go from one to the next [G1] [G2] [G4]', async () => {
    await underLoad('brokers', async () => {
      for (const old of [...brokers]) {
        const next = machines.start('new', 'broker')
        await next.ready()
        machines.balance(next)
        machines.unbalance(old)
        expect(await old.stop()).toBe(0)
        brokers = [...brokers.filter(broker => broker !== old), next]
        await pause(STEP_MS)
      }
    })
    expect(machines.outputOf('new')).not.toMatch(/log_newer|log_corrupt/)
    // An old broker looks in the log for what a client sent before, and cannot read what a new one wrote: it says so, and
    // serves the client (docs/UPGRADE.md). Whether one comes to that depends on where the balancer sends its clients.
    const served = machines
      .outputOf('old')
      .split('\n')
      .filter(line => !line.includes(UNREAD))
    expect(served.join('\n')).not.toMatch(/log_newer|log_corrupt/)
    for (const part of [...brokers, writer, reader, api]) expect(await part?.stop()).toBe(0)
  })

  /** A fleet publishes while something is done; afterwards everything that it sent is as it must be. */
  async function underLoad(name: string, act: () => Promise<void>): Promise<void> {
    const journal = openJournal()
    const devices = Array.from({ length: DEVICES }, (_, n) => `${name}-${String(n).padStart(3, '0')}`)
    const { mqtt: port } = machines
    const fleet = await openFleet({ port, devices, connections: DEVICES, window: WINDOW, rate: RATE, journal })
    try {
      fleet.start()
      await pause(STEP_MS)
      await act()
      await pause(STEP_MS)
      await fleet.drain(60_000)
      if (api === undefined) throw new Error('There is an API.')
      const system = { dataDir: 'no-such-directory', ports: portsOf(machines, api), env: machines.env }
      const found = await check(journal, system, fleet)
      // What a device sends again to an old broker that cannot read the log may be stored twice (docs/UPGRADE.md), and nothing else.
      const report = machines.outputOf('old').includes(UNREAD) ? { ...found, duplicated: 0 } : found
      expect(holds(report), JSON.stringify(report, null, 1) + machines.output().slice(-6_000)).toBe(true)
    } finally {
      fleet.close()
    }
  }

  /** Of every database that is ours, with the statement that made them. */
  function tables(): Promise<unknown[]> {
    const columns = 'database, name, create_table_query'
    return machines.ask(
      `SELECT ${columns} FROM system.tables WHERE startsWith(database, 'telemetry') ORDER BY database, name`,
    )
  }

  async function schema(): Promise<number> {
    const homes = await machines.ask<[string]>(
      `SELECT database FROM system.tables WHERE name = 'migrations' AND startsWith(database, 'telemetry')`,
    )
    const versions = await Promise.all(
      homes.map(async ([database]) => {
        try {
          return await machines.ask<[number]>(`SELECT max(version) FROM ${database}.migrations`)
        } catch (error) {
          // It moved to another database meanwhile.
          if ((error as Error).message.startsWith('Code: 60.')) return []
          throw error
        }
      }),
    )
    return Math.max(...versions.flat(2))
  }
})
