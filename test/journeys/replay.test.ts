/** Six recorded series of real machines, replayed over MQTT by the product's own simulator, and checked by it. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'

const RECORDED = '../shared/data/nab'
const present = existsSync(RECORDED)
if (!present) process.stderr.write(`SKIPPED: ${RECORDED} is not here, so no recorded series is replayed.\n`)

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-replay-'))
let system: SystemOptions
let running: RunningSystem

describe.skipIf(!present)('six recorded series', () => {
  beforeAll(async () => {
    system = { dataDir, ports: await freePorts() }
    running = await startSystem(system)
  })
  afterAll(async () => {
    await running.stop()
    rmSync(dataDir, { recursive: true, force: true })
  })

  it('are in ClickHouse as recorded, each reading once, and so are state and rollups [G2] [G3] [G4] [G7]', async () => {
    const files = readdirSync(RECORDED).filter(name => name.endsWith('.csv'))
    const { mqtt, http, sql } = system.ports
    const { code, stdout, stderr } = await runCommand(
      [
        'simulate',
        ...[
          '--url',
          `mqtt://127.0.0.1:${mqtt}`,
          '--http',
          `http://127.0.0.1:${http}`,
          '--sql',
          `http://127.0.0.1:${sql}`,
        ],
        ...['--verify', '--json', '--replay', ...files.map(name => join(RECORDED, name))],
      ],
      system,
    )
    expect(code, stdout + stderr).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ acked: 46_090 })
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
  })
})
