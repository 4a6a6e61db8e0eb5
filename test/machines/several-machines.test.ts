/** The whole on several machines, against the real servers, while each of its processes is killed in turn. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openFleet } from '../../bench/generator.ts'
import { check, holds, openJournal } from '../crash/checker.ts'
import { runCommand, type SystemOptions } from '../crash/system.ts'
import { kafkaHere } from '../servers/kafka-server.ts'
import { redisHere } from '../servers/redis-server.ts'
import { type Machines, PARTS, type PartName, startMachines } from './fleet-of-processes.ts'

const RECORDED = '../shared/data/nab'
const DEVICES = 200
const RATE = 1_000

describe.skipIf(!kafkaHere || !redisHere)('two brokers, two writers, a reader and the API', () => {
  let machines: Machines
  let system: SystemOptions
  beforeAll(async () => {
    machines = await startMachines()
    system = { dataDir: 'no-such-directory', ports: machines.ports, env: machines.env }
  })
  afterAll(() => machines.close())

  it('lose nothing and double nothing while each process is killed in turn, and the state is the newest [G1] [G2] [G4] [G7]', async () => {
    const resent = await underLoad('killed', async () => {
      for (const part of PARTS) {
        await pause(1_500)
        await machines.killAndRestart(part)
      }
    })
    expect(resent).toBeGreaterThan(0)
  })

  /** Longer than a lease of 5 s, and than a writer's session of 15 s: others have taken over when it wakes. */
  const FROZEN_MS: Partial<Record<PartName, number>> = { 'broker-a': 7_000, 'writer-a': 17_000 }

  it('lose nothing and double nothing while each is frozen in turn, and wakes [G1] [G2] [G4] [G7]', async () => {
    await underLoad('frozen', async () => {
      for (const part of ['broker-a', 'writer-a', 'reader', 'redis', 'kafka', 'clickhouse'] as const) {
        await pause(1_000)
        await machines.freeze(part, FROZEN_MS[part] ?? 4_000)
      }
    })
  })

  it('hold six recorded series as recorded, each reading once [G2] [G3] [G4]', async () => {
    const { mqtt, http, sql } = machines.ports
    const urls = ['--url', `mqtt://127.0.0.1:${mqtt}`, '--http', `http://127.0.0.1:${http}`]
    const files = readdirSync(RECORDED).filter(name => name.endsWith('.csv'))
    const { code, stdout, stderr } = await runCommand(
      [
        'simulate',
        ...urls,
        ...['--sql', `http://127.0.0.1:${sql}`, '--verify', '--json'],
        ...['--replay', ...files.map(name => join(RECORDED, name))],
      ],
      system,
    )
    expect(code, stdout + stderr).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ acked: 46_090 })
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
  })

  it('drain and exit with 0 when they are told to end', async () => {
    for (const part of ['broker-a', 'writer-a', 'reader', 'api'] as const) expect(await machines.stop(part)).toBe(0)
  })

  /** A fleet publishes while the machines suffer; afterwards all is as it must be. Returns how many messages were sent again. */
  async function underLoad(how: string, suffer: () => Promise<void>): Promise<number> {
    const journal = openJournal()
    const devices = Array.from({ length: DEVICES }, (_, n) => `${how}-${String(n).padStart(3, '0')}`)
    const { mqtt: port } = machines.ports
    const fleet = await openFleet({ port, devices, connections: DEVICES, window: 50, rate: RATE, journal })
    try {
      fleet.start()
      await suffer()
      await pause(1_500)
      await fleet.drain(60_000)
      const report = await check(journal, system, fleet)
      expect(holds(report), JSON.stringify(report, null, 1) + machines.output().slice(-6_000)).toBe(true)
      const { stored, lost, duplicated, statesWrong, statesCompared } = report
      const { resent } = fleet.counts()
      process.stderr.write(
        `several machines, each process ${how} in turn: ${stored} readings stored, lost ${lost}, duplicated ${duplicated}, states wrong ${statesWrong} of ${statesCompared}, messages sent again ${resent}\n`,
      )
      return resent
    } finally {
      fleet.close()
    }
  }
})
