/** What an upgrade will do is asked of the new version, while the old one runs (docs/UPGRADE.md, Before, 2). */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { freePorts, runCommand, startSystem } from '../crash/system.ts'
import { unpackBuild } from './packed.ts'

const root = mkdtempSync(join(tmpdir(), 'surgetank-before-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

it('doctor asks an engine of an earlier version; verify says who can', async () => {
  const system = { dataDir: join(root, 'data'), ports: await freePorts() }
  const old = await startSystem({ ...system, dist: unpackBuild('b556fd9-build', join(root, 'old')) })
  try {
    const { stdout } = await runCommand(['doctor'], system)
    expect(stdout).toMatch(
      /clickhouse +embedded, ClickHouse [\d.]+; its tables are brought from version 3 to 4 at the start/,
    )
    const verified = await runCommand(['verify'], system)
    expect(verified.code).toBe(1)
    expect(verified.stderr).toContain('is of an earlier version: ask it by its own `surgetank`')
  } finally {
    await old.killTree()
  }
})
