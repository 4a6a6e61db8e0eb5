/** What an analyst may do, and everything that was found to get around one of the walls. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readsByText, withNames } from '../../database/embedded/analyst.ts'
import { refusedName, SYSTEM_TABLES_ALLOWED } from '../../database/embedded/analyst-names.ts'
import { analystSettings, clauseSettings } from '../../database/embedded/analyst-settings.ts'
import { judgeShape } from '../../database/embedded/analyst-shape.ts'
import type { EngineError } from '../../database/embedded/engine-error.ts'
import type { EngineToken } from '../../database/embedded/engine-tokens.ts'
import { statementText } from '../../database/embedded/sql-text.ts'
import { type Fixture, openFixture, raw, rows } from './database-fixture.ts'

let on: Fixture
const folder = mkdtempSync(join(tmpdir(), 'surgetank-analyst-'))
const secret = join(folder, 'secret.csv')
beforeAll(async () => {
  writeFileSync(secret, 'token\n4711\n')
  on = await openFixture()
  await on.database.migrate()
})
afterAll(async () => {
  await on.close()
  rmSync(folder, { recursive: true, force: true })
})

const ALLOWED = [
  'SELECT count() FROM telemetry.readings',
  'SELECT count() FROM readings',
  'SELECT * FROM latest',
  'SHOW TABLES FROM telemetry',
  'DESCRIBE telemetry.readings',
  'EXISTS telemetry.readings',
  'EXPLAIN SELECT * FROM telemetry.readings',
  'SHOW CREATE TABLE telemetry.readings',
  'WITH 2 AS two SELECT two * number FROM numbers(3)',
  'SELECT sum(x) FROM (SELECT arrayJoin([1, 2]) AS x)',
  "SELECT * APPLY toString FROM values('a Int8, b Int8', (1, 2))",
  "SELECT 'file' AS word, 1 AS `m/s`",
  "SELECT count() FROM telemetry.readings WHERE metric = 'default' -- file",
  "SELECT name FROM system.tables WHERE database = 'telemetry'",
  'SELECT 1;',
]

const DENIED = [
  'INSERT INTO telemetry.readings (device) VALUES (1)',
  'INSERT INTO telemetry.readings (device) FORMAT JSONEachRow {"device":"x"}',
  'INSERT INTO telemetry.readings SELECT * FROM telemetry.readings',
  'DROP TABLE telemetry.readings',
  'TRUNCATE TABLE telemetry.readings',
  'ALTER TABLE telemetry.readings DELETE WHERE 1',
  'RENAME TABLE telemetry.readings TO telemetry.gone',
  'DETACH TABLE telemetry.readings',
  'OPTIMIZE TABLE telemetry.readings FINAL',
  'CREATE TABLE telemetry.mine (a Int8) ENGINE = Memory',
  'CREATE TEMPORARY TABLE mine (a Int8)',
  'CREATE FUNCTION f AS x -> x',
  'SET readonly = 0',
  'USE system',
  'SYSTEM STOP MERGES',
  'KILL QUERY WHERE 1',
  `SELECT 1 INTO OUTFILE '${folder}/out.csv'`,
  `INSERT INTO FUNCTION file('${folder}/out.csv', 'CSV', 'a Int8') SELECT 1`,
  `BACKUP TABLE telemetry.readings TO File('${folder}/backup')`,
  'SELECT 1; DROP TABLE telemetry.readings',
  'SELECT 1 SETTINGS readonly = 0',
  'SELECT 1 SETTINGS max_memory_usage = 0',
  'SELECT 1 SETTINGS max_execution_time = 0',
  `SELECT * FROM file('${secret}')`,
  `SELECT file('${secret}')`,
  `SELECT \`file\`('${secret}')`,
  `SELECT "file"('${secret}')`,
  `SELECT \u201cfile\u201d('${secret}')`,
  `SELECT \`fi\\x6ce\`('${secret}')`,
  `SELECT * APPLY file FROM (SELECT '${secret}' AS a)`,
  `SELECT * APPLY(x -> file(x)) FROM (SELECT '${secret}' AS a)`,
  `SELECT arrayMap(file, ['${secret}'])`,
  `WITH (x -> file(x)) AS f SELECT f('${secret}')`,
  `EXPLAIN SELECT file('${secret}')`,
  `SELECT 1 LIMIT length(file('${secret}'))`,
  `DESCRIBE file('${secret}')`,
  `DESCRIBE TABLE FUNCTION file /* c */ ('${secret}')`,
  `DESCRIBE default.\`${secret}\``,
  `SELECT * FROM default.\`${secret}\``,
  `SELECT * FROM numbers(1), default.\`${secret}\``,
  `SELECT 1 WHERE 1 IN default.\`${secret}\``,
  `SELECT in('a', default.\`${secret}\`)`,
  'SHOW TABLES FROM default',
  'SHOW CREATE DATABASE default',
  `EXISTS default.\`${secret}\``,
  `SHOW COLUMNS FROM \`${secret}\` FROM default`,
  `SELECT * FROM '${secret}'`,
  `DESCRIBE TABLE '${secret}'`,
  `SELECT * FROM \`${secret}\``,
  "SELECT * FROM url('http://127.0.0.1:1/x', CSV, 'a Int8')",
  "DESCRIBE url('http://127.0.0.1:1/x')",
  "DESCRIBE s3('http://127.0.0.1:1/bucket/x')",
  "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
  "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
  "SELECT * FROM executable('id', 'TSV', 'a String')",
  `SELECT * FROM sqlite('${secret}', 't')`,
  "SELECT * FROM filesystem('/etc')",
  "SELECT * FROM eval('SELECT 1')",
  "SELECT * FROM cluster('default', system.one)",
  `SELECT hasColumnInTable('default', '${secret}', 'token')`,
  `SELECT HasColumnInTable('default', '${secret}', 'token')`,
  `SELECT * FROM mergeTreeIndex('default', '${secret}')`,
]

/** The outermost clause alone, with names and values that are open. */
const SETTINGS_ALLOWED = [
  "SELECT 1 SETTINGS max_execution_time=10, max_threads=1, final=1, session_timezone='UTC', log_comment='x'",
  'SELECT 1 settings extremes = true',
  'SELECT 1 SETTINGS max_threads = 1 FORMAT JSON',
  'SELECT 1 FORMAT JSON SETTINGS max_threads = 1',
  'SELECT 1 FORMAT JSON /* c */ SETTINGS -- d\n max_threads = 1;',
  'SELECT 1 UNION ALL SELECT 2 SETTINGS max_block_size = 100',
  '(SELECT 1) SETTINGS max_rows_to_read = 10',
  'WITH 1 AS a SELECT a FROM numbers(3) SETTINGS limit = 2, offset = 1',
  "SELECT * FROM telemetry.readings SETTINGS timeout_overflow_mode = 'break'",
  'EXPLAIN indexes = 1 SELECT * FROM telemetry.readings SETTINGS max_threads = 1',
  'DESCRIBE telemetry.readings SETTINGS max_threads = 1',
  "SELECT name, value FROM system.settings WHERE name = 'settings' SETTINGS max_threads = 1",
  'SELECT `SETTINGS`, t."settings", t.settings FROM (SELECT 1 AS `settings`, 2 AS `SETTINGS`) AS t',
  "SHOW SETTINGS LIKE 'max_th%'",
]

const SETTINGS_DENIED = [
  'SELECT * FROM (SELECT 1 SETTINGS max_threads = 1)',
  'SELECT (SELECT 1 SETTINGS max_threads = 1)',
  'WITH a AS (SELECT 1 SETTINGS max_threads = 1) SELECT * FROM a',
  'SELECT * FROM view(SELECT 1 SETTINGS max_threads = 1)',
  'SELECT 1 SETTINGS max_threads = 1 UNION ALL SELECT 2',
  'SELECT 1 UNION ALL (SELECT 2 SETTINGS max_threads = 1)',
  'SELECT 1 SETTINGS max_threads = 1 SETTINGS final = 1',
  'SELECT 1 SETTINGS max_threads = 1 FORMAT JSON SETTINGS final = 1',
  'SELECT 1 SETTINGS max_threads = 1, max_threads = 1',
  'SELECT 1 SETTINGS final',
  'SELECT 1 SETTINGS',
  'SELECT 1 SETTINGS max_threads = DEFAULT',
  'SELECT 1 SETTINGS max_threads = {n:UInt64}',
  'SELECT 1 SETTINGS max_threads = 1 + 0',
  "SELECT 1 SETTINGS log_comment = 'a\\x27b'",
  'SELECT 1 SETTINGS max_block_size = 0',
  'SELECT 1 SETTINGS max_block_size = 100000000',
  'SELECT 1 SETTINGS max_execution_time = 100000',
  "SELECT 1 SETTINGS session_timezone = '../../etc/passwd'",
  "SELECT 1 SETTINGS session_timezone = '/etc/passwd'",
  'SELECT 1 SETTINGS use_query_cache = 1',
  "SELECT 1 SETTINGS additional_result_filter = '1'",
  "SELECT 1 SETTINGS filter = 'file(1)'",
  "SELECT 1 SETTINGS additional_table_filters = {'system.one': '1'}",
  'SELECT 1 AS SETTINGS',
  'SELECT 1 SETTINGS `max_threads` = 1',
  'SELECT 1\u00a0SETTINGS\u3000readonly\u2003=\u202f0',
  'SHOW SETTINGS readonly = 0',
]

/** Names as parameters: the lexer sees only where they stand. */
const NAMED: [query: string, names: Record<string, string>][] = [
  ['EXISTS {d:Identifier}.{t:Identifier}', { d: 'default', t: secret }],
  ['EXISTS {d:Identifier}.{t:Identifier}', { d: 'default', t: 'plain' }],
  ['EXISTS TABLE { d /* c */ : Identifier }.{t:Identifier}', { d: 'default', t: secret }],
  ['EXISTS {t:Identifier}', { t: `default.${secret}` }],
  ['EXISTS {t:Identifier}', { t: `default.\`${secret}\`` }],
  ['SELECT * FROM {d:Identifier}.{t:Identifier}', { d: 'default', t: secret }],
  ['DESCRIBE {d:Identifier}.{t:Identifier}', { d: 'default', t: secret }],
  ['SHOW CREATE TABLE {d:Identifier}.{t:Identifier}', { d: 'DEFAULT', t: secret }],
  ['SELECT * FROM telemetry.{t:Identifier}', { t: secret }],
]

describe('an analyst', () => {
  test.each(ALLOWED)('may %s', async query => {
    expect(await raw(on.url, { method: 'POST', path: '/', body: query })).toMatchObject({ status: 200 })
  })

  test.each(DENIED)('may not %s', async query => {
    const answer = await raw(on.url, { method: 'POST', path: '/', body: query })
    expect(answer.status).toBeGreaterThanOrEqual(400)
    expect(answer.headers['x-clickhouse-exception-code']).toMatch(/^(164|60|62)$/)
    expect(answer.text).not.toContain('4711')
  })

  test.each(DENIED.filter(query => query.includes(secret)))(
    'is told the same by %s when there is no such file',
    async query => {
      const ask = (body: string) => raw(on.url, { method: 'POST', path: '/', body })
      const [there, missing] = [await ask(query), await ask(query.replaceAll(secret, `${secret}.missing`))]
      const neutral = (text: string) => text.replaceAll(`${secret}.missing`, secret).replaceAll(/\d+/g, 'n')
      expect(neutral(missing.text)).toBe(neutral(there.text))
    },
  )

  test.each(SETTINGS_ALLOWED)('may choose settings by %s', async query => {
    expect(await raw(on.url, { method: 'POST', path: '/?param_n=1', body: query })).toMatchObject({ status: 200 })
  })

  test.each(SETTINGS_DENIED)('may not choose settings by %s', async query => {
    const answer = await raw(on.url, { method: 'POST', path: '/?param_n=1', body: query })
    expect(answer.headers['x-clickhouse-exception-code']).toMatch(/^(164|62)$/)
  })

  test('is told the bound of a setting that asks for more in the statement, because that runs as it stands', async () => {
    const query = 'SELECT 1 SETTINGS max_execution_time = 100000'
    const answer = await raw(on.url, { method: 'POST', path: '/', body: query })
    expect(answer.text).toContain('The setting max_execution_time may be from 1 to 60 here')
  })

  test.each(NAMED)('may not %s with the names %j', async (query, names) => {
    const path = `/?${Object.entries(names)
      .map(([name, value]) => `param_${name}=${encodeURIComponent(value)}`)
      .join('&')}`
    const answer = await raw(on.url, { method: 'POST', path, body: query })
    expect(answer.headers['x-clickhouse-exception-code']).toBe('164')
    expect(answer.text).toContain('is not open to analysts')
  })

  test.each([
    ['SELECT 1; SELECT 2', 'Multi-statements are not allowed: send each in a request of its own. (SYNTAX_ERROR)'],
    ['SET max_threads = 1', 'only SELECT, SHOW, DESCRIBE, EXISTS and EXPLAIN are open here, settings in the address'],
    ['SELECT file FROM (SELECT 1 AS file)', 'a column of that name is written behind a dot, as t.file. (READONLY)'],
    [
      "SELECT 1 SETTINGS join_algorithm = 'hash'",
      "Cannot modify 'join_algorithm' setting in readonly mode; leave it out",
    ],
    ['SELECT 1 SETTINGS max_execution_time = 0.5', 'The setting max_execution_time takes a whole number here'],
    ['SELECT 1 FORMAT Protobuf', 'FORMAT Protobuf takes a schema from a file, which is not open to analysts'],
    ['SELECT 1 FORMAT Nosuch', /^Code: 73\. DB::Exception: Unknown format Nosuch\. \(UNKNOWN_FORMAT\)\s*$/],
    [
      "SELECT 'it''s' WHERE (",
      /^Code: 62\. DB::Exception: Syntax error: (?:(?!formatQuery)[\s\S])*\. \(SYNTAX_ERROR\)\s*$/,
    ],
  ] as const)('who asks %s is told %s', async (query, told) => {
    const { text } = await raw(on.url, { method: 'POST', path: '/', body: query })
    expect(text).toMatch(told)
  })

  test('is told that forms are not spoken, and is not shown their bytes as a statement', async () => {
    const headers = { 'content-type': 'multipart/form-data; boundary=x' }
    const body = '--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n--x--\r\n'
    const answer = await raw(on.url, { method: 'POST', path: '/', headers, body })
    expect(answer).toMatchObject({ status: 501, headers: { 'x-clickhouse-exception-code': '48' } })
  })

  test('is told that bytes are no text, and that a NUL cannot be judged', async () => {
    for (const [body, code] of [
      [Buffer.from([0x53, 0x45, 0xff, 0xfe]), '36'],
      ["SELECT 'a\0b'", '62'],
    ] as const) {
      const answer = await raw(on.url, { method: 'POST', path: '/', body })
      expect(answer).toMatchObject({ status: 400, headers: { 'x-clickhouse-exception-code': code } })
    }
  })

  test('may name a table and a column of the telemetry by parameters', async () => {
    const query = 'SELECT {c:Identifier} FROM {d:Identifier}.{t:Identifier} WHERE metric = {m:String} LIMIT 0'
    const path = '/?param_d=telemetry&param_t=minutely&param_c=max&param_m=default.%2Fetc%2Fpasswd'
    expect(await raw(on.url, { method: 'POST', path, body: query })).toMatchObject({ status: 200 })
  })

  test('leaves no trace of what was denied', async () => {
    expect(existsSync(join(folder, 'out.csv'))).toBe(false)
    expect(
      await rows(
        on.writer,
        "SELECT count() FROM system.tables WHERE database = 'telemetry' AND name IN ('readings', 'mine')",
      ),
    ).toEqual([[1]])
  })

  test('may set the form of results and smaller limits, and nothing else', async () => {
    const get = (query: string) =>
      raw(on.url, { path: `/?query=${encodeURIComponent("SELECT getSetting('max_execution_time')")}&${query}` })
    expect((await get('max_execution_time=5')).text).toBe('5\n')
    expect((await get('max_execution_time=100000')).text).toBe('60\n')
    expect((await get('max_execution_time=0')).text).toBe('60\n')
    expect((await get('output_format_json_quote_64bit_integers=1&readonly=0&quota_key=x')).status).toBe(200)
    for (const name of [
      'output_format_schema',
      'format_schema',
      'allow_experimental_eval_table_function',
      'additional_table_filters',
      'workload',
      'insert_deduplication_token',
    ]) {
      expect(await get(`${name}=1`)).toMatchObject({ status: 403, headers: { 'x-clickhouse-exception-code': '164' } })
    }
  })

  test.each([...SYSTEM_TABLES_ALLOWED])('reads nothing of the machine in system.%s', async table => {
    const result = await on.analyst.query({ query: `SELECT * FROM system.${table} LIMIT 20000`, format: 'CSV' })
    const text = await result.text()
    const facts = [on.folder, process.cwd(), hostname(), process.execPath]
    // A short name of a host may be a part of any word.
    expect(facts.filter(fact => fact.length > 3 && text.includes(fact))).toEqual([])
  })

  test('is stopped at the limit of memory', async () => {
    const query = 'SELECT groupArray(number) FROM numbers(1000000000)'
    await expect(
      on.analyst.query({ query, clickhouse_settings: { max_memory_usage: '50000000' } }),
    ).rejects.toMatchObject({ code: '241' })
  })

  test('is stopped at the limit of time', async () => {
    const query = 'SELECT sum(sipHash64(number)) FROM numbers(100000000000)'
    await expect(on.analyst.query({ query, clickhouse_settings: { max_execution_time: 1 } })).rejects.toMatchObject({
      code: '159',
    })
  })

  test('one who floods the lane is told to come later, and surgetank is served meanwhile', async () => {
    const slow = { query: 'SELECT sleep(3)', format: 'JSONEachRow' as const }
    const flood = Array.from({ length: 200 }, () =>
      raw(on.url, { path: `/?query=${encodeURIComponent(slow.query)}` }).then(answer => answer.status),
    )
    const first = await Promise.race(
      flood.map(one => one.then(status => (status === 503 ? status : new Promise(() => {})))),
    )
    expect(first).toBe(503)
    let answered = 0
    for (const one of flood) void one.catch(() => null).then(status => (answered += status === 200 ? 1 : 0))
    expect(await rows(on.writer, 'SELECT 1')).toEqual([[1]])
    expect(answered).toBeLessThan(60)
    await on.child.stop()
    await Promise.allSettled(flood)
    await on.restart()
  })
})

describe('the parts of the wall', () => {
  const tableFunctions = new Set(['file', 'url', 'numbers'])
  const word = (text: string) => ({ text, type: 'BareWord' })
  const BRACED = ['OpeningCurlyBrace', 'BareWord', 'Colon', 'BareWord', 'ClosingCurlyBrace']
  const bracket = { text: '(', type: 'OpeningRoundBracket' }
  const TYPE_OF: Readonly<Record<string, string>> = {
    '(': 'OpeningRoundBracket',
    '{': 'OpeningCurlyBrace',
    '}': 'ClosingCurlyBrace',
    ':': 'Colon',
    '=': 'Equals',
    ',': 'Comma',
    '1': 'Number',
  }

  test('a table function is refused where it is called, and its name is free elsewhere', () => {
    expect(refusedName([word('url')], tableFunctions)).toBeNull()
    expect(refusedName([word('URL'), bracket], tableFunctions)).toBe('URL')
    expect(refusedName([word('numbers'), bracket], tableFunctions)).toBeNull()
  })

  test.each([
    ['file', 'AS', null],
    ['file', 'BY', null],
    ['file', '(', 'file'],
    ['file', ',', 'file'],
    ['file', 'APPLY', 'file'],
    ['default', 'AS', null],
    ['default', 'FROM', 'default'],
    ['default', 'IN', 'default'],
    ['default', 'DATABASE', 'default'],
    ['default', 'SELECT', null],
    ['default', 'WHERE', null],
    ['hostname', ',', null],
    ['telemetry_internal', 'AS', 'telemetry_internal'],
  ])('the name %s behind %s gives %s', (name, before, refused) => {
    expect(refusedName([word(before), word(name)], tableFunctions)).toBe(refused)
  })

  test('a parameter that is a name is judged as its value, and only one value may be given', () => {
    const tokens = ['{', 'd', ':', 'Identifier', '}'].map((text, at) => ({ text, type: BRACED[at] ?? '' }))
    const given = (...values: string[]) => values.map(value => ({ name: 'param_d', value }))
    expect(withNames(tokens, given('system'))).toEqual([{ text: '`system`', type: 'QuotedIdentifier' }])
    for (const values of [['a.b'], ['a`b'], ['/etc/passwd'], [''], ['a', 'b']])
      expect(() => withNames(tokens, given(...values))).toThrow('is not open to analysts')
  })

  test('the text of a statement is that of the address and the body, and nothing that is no UTF-8', () => {
    expect(statementText('SELECT', Buffer.from('1;'))).toBe('SELECT\n1')
    expect(statementText('', Buffer.from('\ufeff\u3000 SELECT 1 \u00a0;; \n;'))).toBe('SELECT 1')
    expect(statementText('', Buffer.from([0x53, 0xff]))).toBeNull()
    const long = Buffer.from(`SELECT 1${' '.repeat(250_000)}x`)
    const started = process.cpuUsage()
    expect(statementText('', long)).toHaveLength(long.length)
    expect(process.cpuUsage(started).user).toBeLessThan(1_000_000)
  })

  /** They are looked through in the loop that serves the writer, too: in quadratic time, each would take minutes. */
  test.each([
    ['a word SETTINGS', ['SETTINGS'], ['SELECT']],
    ['a setting', ['limit', '=', '1', ','], ['SETTINGS']],
    ['EXPLAIN in brackets', ['(', 'EXPLAIN'], ['SELECT']],
    ['a name as a parameter', ['{', 'p', ':', 'Identifier', '}'], ['SELECT']],
  ])('many times %s is judged in one pass', (_, repeated, first) => {
    const texts = [...first, ...Array.from({ length: 50_000 / repeated.length }, () => repeated).flat()]
    const tokens = texts.map(text => ({ text, type: TYPE_OF[text] ?? 'BareWord' }))
    const params = Array.from({ length: 1_000 }, (_value, at) => ({ name: `param_${at}`, value: 'x' }))
    const started = process.cpuUsage()
    for (const judge of [judgeShape, clauseSettings, (all: EngineToken[]) => withNames(all, params)]) {
      try {
        judge(tokens)
      } catch (error) {
        expect((error as EngineError).code).toBe(164)
      }
    }
    expect(process.cpuUsage(started).user).toBeLessThan(5_000_000)
  })

  test('the limits hold when a client asks for more, or for none', () => {
    const limits = { secondsMax: 10, memoryBytesMax: 100, threadsMax: 1, resultBytesMax: 1 }
    const settings = analystSettings(
      { address: [{ name: 'max_threads', value: '8' }], clause: [], whole: false },
      limits,
    )
    expect(settings).toContainEqual({ name: 'max_threads', value: '1' })
    expect(settings.filter(({ name }) => name === 'max_threads')).toHaveLength(1)
  })

  test.each([
    ['SELECT 1', true],
    ['-- c\nWITH 1 AS x SELECT x;', true],
    ['INSERT INTO t VALUES (1)', false],
    ['SELECT 1; DROP TABLE t', false],
    ["SELECT 1 INTO OUTFILE 'x'", false],
    ['SYSTEM STOP MERGES', false],
  ])('without the classifier of the engine, %j reads: %s', (sql, reads) => {
    expect(readsByText(sql)).toBe(reads)
  })
})

describe('a long statement', () => {
  /** In the engine's own process, where the writers wait meanwhile. */
  test.each([
    ['words of SETTINGS', 'SELECT ', 'SETTINGS, ', 20_000],
    ['explanations', 'SELECT ', '(EXPLAIN SELECT 1), ', 12_000],
    ['names by parameters', 'SELECT ', '{a:Identifier}, ', 15_000],
    ['settings', 'SELECT 1 SETTINGS ', 'x = 1, ', 30_000],
  ])('of %s is judged in time', async (_, head, part, count) => {
    const params = Array.from({ length: 3_000 }, (_, index) => `param_x${index}=1`).join('&')
    const started = performance.now()
    const answer = await raw(on.url, { method: 'POST', path: `/?${params}`, body: `${head}${part.repeat(count)}1` })
    expect(answer.status).toBeGreaterThanOrEqual(400)
    expect(performance.now() - started).toBeLessThan(20_000)
  })
})
