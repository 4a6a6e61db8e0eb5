/** The statements that must not get through: all that reaches out, in every form, by every kind of request. */
import type { Canaries } from './canaries.ts'
import { BARE_FORMS, plain, REQUESTS, SCALAR_FORMS, type Sent, SPELLINGS, TABLE_FORMS } from './forms.ts'
import { type Call, closedTables, scalarCalls, settings, tableCalls } from './reachers.ts'

export interface Attempt {
  readonly sql: string
  readonly sent: Sent
}

const called = ({ name, args }: Call) => `${name}(${args})`

/** Every part appears in several forms, and every form with several parts; the kind of request goes round. */
export function attempts(on: Canaries): Attempt[] {
  const statements = [
    ...tableCalls(on).flatMap((call, index) => [
      ...some(TABLE_FORMS, index, 8).map(form => form(called(call))),
      ...some(SPELLINGS, index, 4).map(spell => `SELECT * FROM ${spell(call)}`),
      `INSERT INTO FUNCTION ${called(call)} SELECT 'x'`,
      `SELECT 1 IN ${called(call)}`,
      called(call),
    ]),
    ...closedTables(on).flatMap((table, index) => some(TABLE_FORMS, index, 5).map(form => form(table))),
    ...closedTables(on).flatMap((table, index) =>
      some(TABLE_NAMES, index, 3).map(spell => `SELECT * FROM ${spell(table)}`),
    ),
    ...scalarCalls(on).flatMap((call, index) => [
      ...some(SCALAR_FORMS, index, 7).map(form => form(called(call))),
      ...some(SPELLINGS, index, 4).map(spell => `SELECT ${spell(call)}`),
      ...(call.args === '' ? [] : some(BARE_FORMS, index, 3).map(form => form(call))),
    ]),
    ...settings(on).flatMap(([name, value]) => SETTING_FORMS.map(form => form(name, value))),
    ...shown(on),
    ...texts(on),
  ]
  return [
    ...statements.map((sql, index) => ({ sql, sent: (REQUESTS[index % REQUESTS.length] ?? plain)(sql) })),
    ...settings(on)
      .filter(([name]) => !CUT_IN_ADDRESS.has(name))
      .map(([name, value]) => {
        const bare = value.replace(/^'(.*)'$/s, '$1')
        return { sql: `${name}=${bare}`, sent: { ...plain('SELECT 1'), path: `/?${name}=${encodeURIComponent(bare)}` } }
      }),
    ...withParams(on),
  ]
}

/** In the address these are no error: cut to their limit, or, as every answer is read-only, without effect. */
const CUT_IN_ADDRESS = new Set(['readonly', 'max_memory_usage', 'max_execution_time', 'max_threads'])

/** `count` of a list, from another place for each `index`, so that all are used. */
function some<One>(list: readonly One[], index: number, count: number): One[] {
  return Array.from(
    { length: Math.min(count, list.length) },
    (_, at) => list[(index * 5 + at * 3) % list.length] as One,
  )
}

const TABLE_NAMES: ((table: string) => string)[] = [
  table => table.replace('.', ' . '),
  table => table.replace('.', '/* c */./* . */'),
  table => table.replace('.', '\u00a0.\u3000'),
  table => table.replace('.', ' -- c\n.'),
  table => table.replace(/^(\w+)\./, '`$1`.'),
  table => table.replace(/^(\w+)\./, '"$1".'),
  table => table.replace(/^(\w+)\./, '\u201c$1\u201d.'),
  table => table.replace(/\.(\w+)$/, '.`$1`'),
  table => table.replace(/^(\w)(\w+)\.(\w+)$/, (_, a, b, c) => `\`\\x${a.charCodeAt(0).toString(16)}${b}\`.${c}`),
  table => `(SELECT ${table}.* FROM ${table})`,
]

const SETTING_FORMS: ((name: string, value: string) => string)[] = [
  (name, value) => `SELECT 1 SETTINGS ${name} = ${value}`,
  (name, value) => `SELECT 1 settings/**/${name}=${value} FORMAT JSON`,
  (name, value) => `SELECT 1 FORMAT JSON\u00a0SETTINGS\u3000${name} = ${value}`,
  (name, value) => `SELECT 1 SETTINGS max_threads = 1, ${name} = ${value}`,
  (name, value) => `SELECT * FROM (SELECT dummy FROM system.one SETTINGS ${name} = ${value})`,
  (name, value) => `SELECT (SELECT 1 SETTINGS ${name} = ${value})`,
  (name, value) => `WITH c AS (SELECT dummy FROM system.one SETTINGS ${name} = ${value}) SELECT * FROM c`,
  (name, value) => `SELECT 1 UNION ALL SELECT 2 SETTINGS ${name} = ${value}`,
  (name, value) => `SELECT 1 SETTINGS ${name} = ${value} UNION ALL SELECT 2`,
  (name, value) => `SELECT * FROM view(SELECT 1 # c\n SeTtInGs ${name} = ${value})`,
  (name, value) => `SELECT 1 IN (SELECT 1 SETTINGS ${name} = ${value})`,
  (name, value) => `EXPLAIN SELECT 1 SETTINGS ${name} = ${value}`,
  (name, value) => `DESCRIBE (SELECT 1 SETTINGS ${name} = ${value})`,
  (name, value) => `SET ${name} = ${value}`,
]

/** Statements that are of one kind each. */
function shown({ file, target, folder }: Canaries): string[] {
  return [
    ...(
      'PROCESSLIST,FULL PROCESSLIST,USERS,GRANTS,ACCESS,ROLES,CURRENT ROLES,QUOTAS,QUOTA,POLICIES,PROFILES,CLUSTERS,' +
      "CLUSTER 'default',MERGES,FILESYSTEM CACHES,CREATE USER default,CREATE ROLE x,CREATE SETTINGS PROFILE default," +
      'CREATE QUOTA default,CREATE USERS,CREATE ROLES,CREATE PROFILES,CREATE QUOTAS,CREATE USER,CREATE QUOTA,' +
      'CREATE MASKING POLICY x,CREATE WORKLOAD x,ACCESS,TABLES FROM telemetry_internal,TABLES FROM default,COLUMNS FROM state FROM telemetry_internal'
    )
      .split(',')
      .map(what => `SHOW ${what}`),
    `SELECT 1 INTO OUTFILE '${target}'`,
    `SELECT 1 INTO OUTFILE '${target}' TRUNCATE FORMAT CSV`,
    `EXPLAIN SELECT 1 INTO OUTFILE '${target}'`,
    `(SELECT 1) INTO OUTFILE '${target}'`,
    `SELECT 1 FORMAT CSV SETTINGS max_threads = 1 INTO OUTFILE '${target}'`,
    `SELECT 1 /* */ INTO/**/OUTFILE '${target}'`,
    `INSERT INTO FUNCTION file('${target}', 'CSV', 'a Int8') VALUES (1)`,
    `INSERT INTO telemetry.readings FROM INFILE '${file}' FORMAT CSV`,
    `BACKUP TABLE telemetry.readings TO File('${folder}/targets/b')`,
    `CREATE DATABASE d ENGINE = Filesystem('${folder}')`,
    `CREATE TABLE telemetry.t (token String) ENGINE = File(CSV, '${file}')`,
    `CREATE FUNCTION f AS x -> file(x)`,
    `ATTACH TABLE t FROM '${folder}' (a Int8) ENGINE = Memory`,
    'SYSTEM FLUSH LOGS',
    'SYSTEM SHUTDOWN',
    'KILL QUERY WHERE 1',
    'USE system',
    'CHECK TABLE telemetry.readings',
    'CHECK GRANT SELECT ON *.*',
    'BEGIN TRANSACTION',
    'EXPLAIN CURRENT TRANSACTION',
    'EXPLAIN SYNTAX SYSTEM SHUTDOWN',
    'EXPLAIN AST optimize = 1, graph = 1 SELECT 1',
    'SELECT * FROM (EXPLAIN AST graph = 1 SELECT 1)',
    `EXPLAIN TABLE OVERRIDE mysql('127.0.0.1', 'd', 't', 'u', 'p') COLUMNS (a Int8)`,
    `SELECT 1 PARALLEL WITH SELECT 2`,
    `SELECT 1\n\nDROP TABLE telemetry.readings`,
    'SELECT 1 FORMAT TSV\n\nDROP TABLE telemetry.readings',
    `SELECT 1\0; SELECT file('${file}')`,
    `SELECT 'a\0', file('${file}')`,
    `SELECT 1\\G`,
    `SELECT $a$ ' $b$ $a$, file('${file}') -- '`,
    `SELECT 'a\\', file('${file}') -- '`,
    `SELECT 'it''s', file('${file}')`,
    `SELECT /* ' */ file('${file}') /* ' */`,
    `SELECT 1 -- \u2028 , file(\n, file('${file}')`,
    `SELECT 1 \u2014 file('${file}')`,
    `SELECT '\u2019', file('${file}')`,
    `SELECT \u2018 ' \u2019, file('${file}')`,
    `SELECT "a\`b", \`a"b\`, file('${file}')`,
    `SELECT 1 \u2212 length(file('${file}'))`,
    `SELECT 1 #! , \n, file('${file}')`,
    `SELECT 1 /*/ , /*/ , file('${file}')`,
    `SELECT ${'('.repeat(400)}file('${file}')${')'.repeat(400)}`,
    `SELECT '${'x'.repeat(270_000)}'`,
    `SELECT 1${' '.repeat(262_100)}, file('${file}')`,
  ]
}

/** Texts in which the engine reads SQL by itself: columns of a table function, and aggregate functions by a text. */
function texts({ file }: Canaries): string[] {
  const read = `file(''${file}'')`
  const columns = [
    `'a String, b String ALIAS ${read}'`,
    `'a String, b String aLiAs\n${read}'`,
    `'a String, b String ALIAS/**/${read}'`,
    `'a String, b String ALI\\x41S ${read}'`,
    `'a String, b ALIAS arrayMap(file, [''${file}''])'`,
    `'a String, b ALIAS hostName()'`,
    `'a String, b ALIAS hasColumnInTable(''system'', ''processes'', ''query'')'`,
    `'a String, b String DEFAULT ${read}'`,
    `'a String, b String MATERIALIZED ${read}'`,
    `'a String, b String EPHEMERAL ${read}'`,
    `$$a String, b String ALIAS file('${file}')$$`,
    `$x$a String, b String ALIAS file('${file}')$x$`,
    `\u2018a String, b String ALIAS file("${file}")\u2019`,
  ]
  const aggregates = [
    `groupConcat(${read})`,
    `groupConcat((SELECT toString(count()) FROM system.processes))`,
    `groupConcat(hostName())`,
    `groupConcat( upper(${read}))`,
    `quantile(length(${read}) / 100)`,
    `groupConcat("x")`,
  ]
  const concat = `concat('a String, b String ALI', 'AS ${read}')`
  return [
    ...columns.flatMap(text => [
      `SELECT b FROM values(${text}, 'x')`,
      `SELECT b FROM VALUES ( ( ${text} ), 'x')`,
      `SELECT b FROM values(${text} AS z, 'x')`,
      `SELECT b FROM \`values\`(${text}, 'x')`,
      `SELECT b FROM generateRandom(${text}) LIMIT 1`,
      `SELECT b FROM GENERATERANDOM(${text}, 1, 2) LIMIT 1`,
      `SELECT b FROM null(${text})`,
      `DESCRIBE null(${text})`,
      `DESCRIBE TABLE format(CSV, ${text}, 'x')`,
      `SELECT * FROM format(CSV, ${text}, 'x')`,
      `SELECT b FROM view(SELECT b FROM generateRandom(${text}) LIMIT 1)`,
      `SELECT 1 IN (SELECT b FROM values(${text}, 'x'))`,
      `WITH ${text} AS z SELECT b FROM values(z, 'x')`,
      `WITH ${text} AS z SELECT b FROM values((z), 'x')`,
    ]),
    ...['concat', '(SELECT', 'z'].map(form => {
      const text = form === 'z' ? form : form === 'concat' ? concat : `(SELECT ${concat})`
      return `WITH ${concat} AS z SELECT b FROM generateRandom(${text}) LIMIT 1`
    }),
    ...aggregates.flatMap(text => [
      `SELECT arrayReduce('${text}', ['a', 'b'])`,
      `SELECT \`arrayReduce\` /**/ ('${text}', ['a', 'b'])`,
      `SELECT arrayReduceInRanges('${text}', [(1, 2)], ['a', 'b'])`,
      `SELECT toTypeName(initializeAggregation('${text.replace('(', 'State(')}', 'a'))`,
      `SELECT arrayReduce(concat('${text.slice(0, 13)}', '${text.slice(13)}'), ['a', 'b'])`,
      `WITH '${text}' AS z SELECT arrayReduce(z, ['a', 'b'])`,
      `SELECT arrayMap(x -> arrayReduce('${text}', [x]), ['a'])`,
      `SELECT arrayReduce($$${text.replaceAll("''", "'")}$$, ['a', 'b'])`,
      `SELECT arrayReduce(('${text}'), ['a', 'b'])`,
      `SELECT arrayReduce('${text}' AS z, ['a', 'b'])`,
    ]),
    `SELECT arrayMap(arrayReduce, ['groupConcat(${read})'], [['a']])`,
    'SELECT tid()',
    ...[
      "toDateTime(0, 'file:/etc/localtime')",
      'toDateTime(0, $$file:/etc/localtime$$)',
      "toDateTime(0, '\\x66ile\\x3A/etc/localtime')",
      "toTimeZone(now(), 'file:../x')",
      "now('file:/etc/localtime')",
      "CAST(0, 'DateTime(\\'file:/etc/localtime\\')')",
      "CAST(0, 'DateTime(''file:/etc/localtime'')')",
      "CAST(0, $$DateTime('file:/etc/localtime')$$)",
      "0::DateTime('file:/etc/localtime')",
      "formatDateTime(now(), '%F', 'file:/etc/localtime')",
      "concat('file:', '/etc/localtime')",
    ].map(zone => `SELECT ${zone}`),
  ]
}

/** Parameters: values that become names, texts or settings after the text has been cut into tokens. */
function withParams({ file, url }: Canaries): Attempt[] {
  const given: [sql: string, params: Record<string, string>][] = [
    ['SELECT * FROM {d:Identifier}.{t:Identifier}', { d: 'system', t: 'processes' }],
    ['SELECT * FROM {d:Identifier}.processes', { d: 'system' }],
    ['SELECT * FROM system.{t:Identifier}', { t: 'processes' }],
    ['SELECT * FROM { d /* c */ : Identifier } . { t : Identifier }', { d: 'system', t: 'errors' }],
    ['SELECT * FROM {t:Identifier}', { t: 'system.processes' }],
    ['SELECT * FROM {d:Identifier}.{t:Identifier}', { d: 'telemetry_internal', t: 'state' }],
    ['SELECT * FROM {d:Identifier}.{t:Identifier}', { d: 'default', t: file }],
    ['SELECT * FROM {t:Identifier}', { t: `default.\`${file}\`` }],
    ['SELECT {f:Identifier}({x:String})', { f: 'file', x: file }],
    ['SELECT arrayMap({f:Identifier}, [{x:String}])', { f: 'file', x: file }],
    ['SELECT * APPLY {f:Identifier} FROM (SELECT {x:String} AS a)', { f: 'file', x: file }],
    ['SELECT file({x:String})', { x: file }],
    ['SELECT * FROM file({x:String})', { x: file }],
    ["SELECT * FROM url({x:String}, 'CSV', 'a String')", { x: url }],
    ['SELECT * FROM {f:Identifier}({x:String})', { f: 'url', x: url }],
    ['SELECT 1 SETTINGS max_threads = {x:UInt64}', { x: '1' }],
    ['SELECT 1 SETTINGS {n:Identifier} = 0', { n: 'readonly' }],
    ['SELECT * FROM (SELECT 1 SETTINGS readonly = {x:UInt64})', { x: '0' }],
    ['SELECT * FROM merge({d:String}, {t:String})', { d: 'system', t: 'processes' }],
    ["SELECT b FROM values({x:String}, 'x')", { x: `a String, b String ALIAS file('${file}')` }],
    ["SELECT b FROM values(({x:String}), 'x')", { x: `a String, b String ALIAS file('${file}')` }],
    ['SELECT b FROM generateRandom({x:String}) LIMIT 1', { x: `a String, b String ALIAS file('${file}')` }],
    ["SELECT b FROM {f:Identifier}('b String ALIAS file(''x'')') LIMIT 1", { f: 'generateRandom' }],
    ['SELECT toDateTime(0, {x:String})', { x: 'file:/etc/localtime' }],
    ['SELECT toDateTime(0, {x:String})', { x: '\\x66ile:/etc/localtime' }],
    ['SELECT CAST(0, {x:String})', { x: "DateTime('file:/etc/localtime')" }],
    ['SELECT arrayReduce({x:String}, [1])', { x: `groupConcat(file('${file}'))` }],
    ["SELECT {f:Identifier}('groupConcat(upper(''x''))', [1])", { f: 'arrayReduce' }],
    ["SELECT hasColumnInTable({d:String}, {t:String}, 'token')", { d: 'default', t: file }],
  ]
  return given.map(([sql, params]) => {
    const query = Object.entries(params).map(([name, value]) => `param_${name}=${encodeURIComponent(value)}`)
    return { sql: `${sql} ${JSON.stringify(params)}`, sent: { ...plain(sql), path: `/?${query.join('&')}` } }
  })
}
