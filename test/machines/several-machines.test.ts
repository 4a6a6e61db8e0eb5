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
import { type Machines, PARTS, startMachines } from './fleet-of-processes.ts'

const RECORDED = '../shared/data/nab'
const DEVICES = 200
const RATE = 1_000

describe.skipIf(!kafkaHere || !redisHere)('two brokers, two writers, a reader and the API', () => {
  let machines: Machines
  let system: SystemOptions
  beforeAll(async () => {
    machines = await startMachines()
    system = { dataDir: 'no-such-directory', ports: machines.ports, env: machines.env }
  }, 120_000)
  afterAll(() => machines.close())

  it('lose nothing and double nothing while each process is killed in turn, and the state is the newest [G1] [G2] [G4] [G7]', async () => {
    const journal = openJournal()
    const devices = Array.from({ length: DEVICES }, (_, n) => `machine-${String(n).padStart(3, '0')}`)
    const { mqtt: port } = machines.ports
    const fleet = await openFleet({ port, devices, connections: DEVICES, window: 50, rate: RATE, journal })
    try {
      fleet.start()
      for (const part of PARTS) {
        await pause(1_500)
        await machines.killAndRestart(part)
      }
      await pause(1_500)
      await fleet.drain(60_000)
      const report = await check(journal, system, fleet)
      expect(holds(report), JSON.stringify(report, null, 1) + machines.output().slice(-6_000)).toBe(true)
      expect(fleet.counts().resent).toBeGreaterThan(0)
      process.stderr.write(
        `several machines, each process killed in turn: ${report.stored} readings stored, lost ${report.lost}, duplicated ${report.duplicated}, states wrong ${report.statesWrong} of ${report.statesCompared}\n`,
      )
    } finally {
      fleet.close()
    }
  }, 240_000)

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
  }, 120_000)

  it('drain and exit with 0 when they are told to end', async () => {
    for (const part of ['broker-a', 'writer-a', 'reader', 'api'] as const) expect(await machines.stop(part)).toBe(0)
  })
})
