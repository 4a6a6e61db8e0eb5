/** Nothing that an analyst sends reads a file, writes one, makes a connection, or shows the statements of others [G6]. */
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ClickHouseClient } from '@clickhouse/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../../database/clickhouse-database.ts'

import { noneStands } from '../../../database/embedded/walls/walls.ts'
import { embeddedAccess } from '../../../manager/adapters.ts'
import { openOwnClient, type RawAnswer, raw, scalar } from '../database-fixture.ts'
import { end, type Lone, startLone } from '../lone.ts'
import { type Canaries, openCanaries, WORD } from './canaries.ts'
import { type Attempt, attempts } from './corpus.ts'
import { plain } from './forms.ts'

/** An engine without walls: what holds here is the judgement of statements alone. The walls alone hold in walled.test.ts. */
let on: { readonly folder: string; readonly url: string; readonly writer: ClickHouseClient; readonly lone: Lone }
let canaries: Canaries
beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-reach-'))
  const lone = await startLone('./open-parent.mjs', folder)
  expect(noneStands(lone.walls)).toBe(true)
  on = { folder, url: `http://127.0.0.1:${lone.port}`, writer: openOwnClient(lone.own), lone }
  const database = openDatabase(embeddedAccess(dirname(lone.own)))
  await database.migrate()
  await database.close()
  canaries = await openCanaries(folder)
})
afterAll(async () => {
  await canaries.close()
  await on.writer.close()
  await end(on.lone.parent)
  rmSync(on.folder, { recursive: true, force: true })
})

/** Refused before it ran: not open to analysts, no statement, too long, not spoken, or begun in another database. */
const REFUSED = /^(?:164|62|307|36|48|306|167)$/
/** Requests that are under way at a time. */
const AT_ONCE = 8

async function send({ sent }: Pick<Attempt, 'sent'>): Promise<RawAnswer> {
  return raw(on.url, { method: 'POST', ...sent })
}

/** It reaches nothing but files, writes none, and comes to an end. */
function isAlone(sql: string): boolean {
  return !/OUTFILE|\b(?:url|s3|gcs|oss|cosn|hdfs|remote|mysql|\w+Cluster|iceberg|executable|loop|fuzzQuery|generateRandom)\b|http/i.test(
    sql,
  )
}

/** What went wrong, by the statement. */
async function faults(all: readonly Attempt[]): Promise<string[]> {
  const found: string[] = []
  const queue = all.values()
  const work = async () => {
    for (const attempt of queue) {
      const answer = await send(attempt)
      const fault = faultOf(answer, String(answer.headers['x-clickhouse-exception-code']), attempt.sql)
      if (fault !== null) found.push(`${fault}: ${attempt.sql.slice(0, 200)}\n  ${answer.text.slice(0, 200)}`)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return found
}

function faultOf({ status, text }: RawAnswer, code: string, sql: string): string | null {
  if (text.includes(WORD)) return 'reads a canary'
  if (status < 400 || !REFUSED.test(code)) return `is not refused (${status}, ${code})`
  if (text.includes(on.folder) && !sql.includes(on.folder)) return 'tells where the data is'
  return null
}

describe('what reaches out', () => {
  test('is refused in every form, and touches nothing', async () => {
    const all = attempts(canaries)
    expect(all.length).toBeGreaterThan(1_500)
    expect(new Set(all.map(({ sql }) => sql)).size).toBeGreaterThan(1_500)
    expect(await faults(all)).toEqual([])
    expect(canaries.connections()).toBe(0)
    expect(canaries.written()).toEqual([])
    expect(existsSync(canaries.target)).toBe(false)
    expect(await scalar(on.writer, "SELECT count() FROM system.tables WHERE database = 'telemetry'")).toBe(5)
  })

  /** The canaries are worth something only where they are reached by who may: surgetank itself, whom nothing judges. */
  test('would be reached, by the same statements, by who is not judged', async () => {
    const reads = attempts(canaries).map(({ sql }) => sql)
    const ofFiles = reads.filter(sql => /^(?:SELECT|WITH|FROM|\()/i.test(sql) && /\bfile\b/i.test(sql) && isAlone(sql))
    const queue = ofFiles.values()
    let reached = 0
    const work = async () => {
      for (const sql of queue) {
        const found = await text(sql).catch(() => '')
        if (found.includes(WORD)) reached++
      }
    }
    await Promise.all([work(), work(), work(), work()])
    expect(reached).toBeGreaterThan(80)
    expect(canaries.connections()).toBe(0)

    await text(`SELECT * FROM url('${canaries.url}', 'CSVWithNames', 'token String')`)
    expect(canaries.connections()).toBeGreaterThan(0)
    await text(`INSERT INTO FUNCTION file('${canaries.target}', 'CSV', 'a Int8') SELECT 1`)
    expect(canaries.written()).toEqual(['written'])
  })

  test('is not stopped by read-only alone: SETTINGS in a subquery undoes it (ClickHouse issue 116028)', async () => {
    const { file } = canaries
    const nested = `SELECT * FROM (SELECT * FROM file('${file}') SETTINGS readonly = 0)`
    expect(await text(nested, { readonly: '1' })).toContain(WORD)
    await expect(text(`SELECT * FROM file('${file}')`, { readonly: '1' })).rejects.toMatchObject({ code: '164' })
    expect(await send({ sent: plain(nested) })).toMatchObject({ status: 403 })
  })

  async function text(query: string, settings: Record<string, string> = {}): Promise<string> {
    const result = await on.writer.query({ query, format: 'JSONEachRow', clickhouse_settings: settings })
    return result.text()
  }
})

describe('what analysts see of each other', () => {
  test('is nothing: the statement of one is in no answer to another', async () => {
    const slow = request(on.url, { method: 'POST', agent: false })
    slow.end("SELECT number, 'OTHERS4712' FROM numbers(1000000000000)")
    const [unread] = (await once(slow, 'response')) as [IncomingMessage]
    const others = "FROM system.processes WHERE query LIKE '%OTHERS4712%' AND query NOT LIKE '%processes%'"
    const running = () => scalar(on.writer, `SELECT count() ${others}`)
    expect(await running()).toBe(1)
    for (const sql of [
      'SELECT query FROM system.processes',
      'SHOW PROCESSLIST',
      'SELECT * FROM system.errors',
      'SELECT trace FROM system.stack_trace',
      'SELECT query FROM system.query_cache',
    ]) {
      for (const path of ['/', '/?database=system']) {
        const answer = await send({ sent: { ...plain(sql), path } })
        expect(answer.text).not.toContain('OTHERS4712')
        expect(answer.status).toBe(403)
      }
    }
    expect(await running()).toBe(1)
    unread.destroy()
  })

  test('a bare name never opens a table of system', async () => {
    for (const database of ['system', 'telemetry_internal', 'default`.`x', 'SYSTEM', '/etc']) {
      const path = `/?database=${encodeURIComponent(database)}`
      expect(await send({ sent: { ...plain('SELECT * FROM processes'), path } })).toMatchObject({ status: 403 })
    }
    for (const path of ['/', '/?database=default', '/?database=information_schema', '/?database=telemetry']) {
      expect(await send({ sent: { ...plain('SELECT * FROM processes'), path } })).toMatchObject({ status: 404 })
    }
  })

  test('the host has no name', async () => {
    const answer = await send({
      sent: plain('SELECT hostName(), FQDN(), fullHostName(), displayName(), "hostname" ()'),
    })
    expect(answer.text).toBe(`${Array(5).fill('surgetank').join('\t')}\n`)
  })
})
