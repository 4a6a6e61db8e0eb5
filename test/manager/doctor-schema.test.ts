/** What `surgetank doctor` says of the tables in ClickHouse: their version, and what the next start would do to them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { examine, type Finding } from '../../manager/doctor.ts'
import { readSettings } from '../../settings.ts'
import { type Fixture, openFixture } from '../database/database-fixture.ts'
import { insertOld, makeOld } from '../database/old-database.ts'

let on: Fixture
let root: string
beforeAll(async () => {
  on = await openFixture()
  root = mkdtempSync(join(tmpdir(), 'surgetank-doctor-schema-'))
})
afterAll(async () => {
  await on.close()
  rmSync(root, { recursive: true, force: true })
})

async function clickhouseFinding(database: string | null): Promise<Finding | undefined> {
  const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
  const server =
    database === null
      ? {}
      : {
          ...on.server.env,
          SURGETANK_CLICKHOUSE_DATABASE: database,
        }
  const findings = await examine(readSettings({ SURGETANK_DATA_DIR: root, ...ports, ...server }))
  return findings.find(({ what }) => what === 'clickhouse')
}

it('says what the next start would write anew, what that needs, and what is free', async () => {
  await makeOld(on, 'old', 3)
  await insertOld(on, 'old', [{ value: 1 }, { value: 2 }])
  expect(await clickhouseFinding('old')).toMatchObject({
    verdict: 'ok',
    found: expect.stringMatching(
      /from version 3 to 4 at the start: 2 readings are written anew, for which \d+ MiB are needed and \d+ MiB are free$/,
    ),
  })
})

it('names a column that no version made, before the start that would stop for it', async () => {
  await makeOld(on, 'edited', 3)
  await on.writer.command({ query: 'ALTER TABLE edited.readings ADD COLUMN location String' })
  expect(await clickhouseFinding('edited')).toMatchObject({
    verdict: 'stop',
    found: expect.stringMatching(/edited\.readings .* it has the column location besides/),
  })
})

it('says of tables of this version where those of the system are, and what was changed in them', async () => {
  await on.database.migrate()
  expect(await clickhouseFinding('telemetry')).toMatchObject({
    verdict: 'ok',
    found: expect.stringMatching(/its tables are there, of version 4, those of the system in telemetry_internal$/),
  })
  await on.writer.command({ query: 'ALTER TABLE telemetry.readings ADD COLUMN location String' })
  expect(await clickhouseFinding('telemetry')).toMatchObject({
    verdict: 'warn',
    advice: expect.stringContaining('it has the column location besides'),
  })
})

it('says that an embedded engine that does not run cannot be asked', async () => {
  expect(await clickhouseFinding(null)).toMatchObject({ verdict: 'ok', found: expect.stringContaining('not running') })
})
