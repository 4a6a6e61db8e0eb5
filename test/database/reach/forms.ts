/** The ways to put a piece of SQL into a statement, and a statement into a request. */
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import type { Call } from './reachers.ts'

/** What is sent: a path with its query, and a body. */
export interface Sent {
  readonly path: string
  readonly body: Buffer
  readonly headers: Record<string, string>
}

export function plain(sql: string): Sent {
  return { path: '/', body: Buffer.from(sql), headers: {} }
}

/** Statements around something that stands where a table does. */
export const TABLE_FORMS: ((table: string) => string)[] = [
  table => `SELECT * FROM ${table}`,
  table => `select * from ${table} format JSONEachRow`,
  table => `FROM ${table} SELECT *`,
  table => `(SELECT * FROM ${table})`,
  table => `SELECT * FROM (SELECT * FROM ${table})`,
  table => `SELECT * FROM (SELECT * FROM (SELECT * FROM ${table} LIMIT 5) WHERE 1)`,
  table => `SELECT (SELECT toString(groupArray(tuple(*))) FROM ${table})`,
  table => `WITH c AS (SELECT * FROM ${table}) SELECT * FROM c`,
  table => `WITH (SELECT toString(groupArray(tuple(*))) FROM ${table}) AS c SELECT c`,
  table => `SELECT '' UNION ALL SELECT toString(tuple(*)) FROM ${table}`,
  table => `SELECT toString(tuple(*)) FROM ${table} EXCEPT SELECT ''`,
  table => `SELECT * FROM view(SELECT * FROM ${table})`,
  table => `SELECT 'x' IN (SELECT toString(tuple(*)) FROM ${table})`,
  table => `SELECT EXISTS(SELECT * FROM ${table})`,
  table => `SELECT * FROM numbers(1) AS n CROSS JOIN ${table} AS t`,
  table => `SELECT * FROM ${table} AS t ARRAY JOIN [1] AS a`,
  table => `SELECT 1 WHERE 1 GROUP BY 1 HAVING (SELECT count() FROM ${table}) > 0`,
  table => `SELECT 1 ORDER BY (SELECT count() FROM ${table})`,
  table => `SELECT 1 LIMIT (SELECT count() FROM ${table})`,
  table => `DESCRIBE ${table}`,
  table => `DESCRIBE TABLE ${table}`,
  table => `DESC (SELECT * FROM ${table})`,
  table => `EXPLAIN SELECT * FROM ${table}`,
  table => `EXPLAIN ESTIMATE SELECT * FROM ${table}`,
  table => `SELECT * FROM (EXPLAIN SELECT * FROM ${table})`,
  table => `SELECT 1; SELECT * FROM ${table}`,
  table => `/* /* a */ SELECT * FROM ${table} -- */`,
  table => `SELECT * FROM ${table} SETTINGS max_threads = 1`,
  table => `SELECT * FROM ${table} SETTINGS readonly = 0`,
  table => `SELECT * FROM (SELECT * FROM ${table} SETTINGS readonly = 0)`,
  table =>
    `SELECT * FROM (SELECT * FROM ${table} SETTINGS readonly=0, allow_introspection_functions=1, max_execution_time=0)`,
  table => `WITH c AS (SELECT * FROM ${table} SETTINGS readonly = 0) SELECT * FROM c`,
  table => `SELECT * FROM view(SELECT * FROM ${table} SETTINGS readonly = 0)`,
  table => `SELECT (SELECT count() FROM ${table} SETTINGS readonly = 0)`,
  table => `SELECT 1 UNION ALL (SELECT count() FROM ${table} SETTINGS readonly = 0)`,
  table => `CREATE TEMPORARY TABLE t AS SELECT * FROM ${table}`,
  table => `CREATE VIEW telemetry.v AS SELECT * FROM ${table}`,
  table => `INSERT INTO telemetry.readings SELECT * FROM ${table}`,
]

/** Spellings of a call: quotes, letter case, blanks, comments, and texts in other quotes. */
export const SPELLINGS: ((call: Call) => string)[] = [
  ({ name, args }) => `${name}(${args})`,
  ({ name, args }) => `${name.toUpperCase()}(${args})`,
  ({ name, args }) => `${name} (${args})`,
  ({ name, args }) => `${name}/**/(${args})`,
  ({ name, args }) => `${name} -- c\n (${args})`,
  ({ name, args }) => `${name} # c\n (${args})`,
  ({ name, args }) => `${name} // c\n (${args})`,
  ({ name, args }) => `${name}\u00a0(\u3000${args})`,
  ({ name, args }) => `${name}\u200b\v\f(${args})`,
  ({ name, args }) => `\`${name}\`(${args})`,
  ({ name, args }) => `"${name}"(${args})`,
  ({ name, args }) => `\u201c${name}\u201d(${args})`,
  ({ name, args }) => `\`\\x${name.charCodeAt(0).toString(16)}${name.slice(1)}\`(${args})`,
  ({ name, args }) => `${name}(${args.replaceAll(/'([^'\\]*)'/g, '$$$$$1$$$$')})`,
  ({ name, args }) => `${name}(${args.replaceAll(/'([^'\\]*)'/g, '\u2018$1\u2019')})`,
  ({ name, args }) =>
    `${name}(${args.replaceAll(/'([^'\\]+)'/g, (_, text) => `concat('${text.slice(0, 1)}', '${text.slice(1)}')`)})`,
]

/** Statements around something that stands where a value does. */
export const SCALAR_FORMS: ((value: string) => string)[] = [
  value => `SELECT ${value}`,
  value => `SELECT 1 WHERE toString(${value}) != ''`,
  value => `SELECT (SELECT ${value})`,
  value => `SELECT * FROM (SELECT ${value})`,
  value => `SELECT * FROM (SELECT ${value} SETTINGS readonly = 0)`,
  value => `WITH ${value} AS v SELECT v`,
  value => `WITH x -> ${value} AS f SELECT f(1)`,
  value => `SELECT arrayMap(x -> ${value}, [1])`,
  value => `SELECT * FROM view(SELECT ${value})`,
  value => `SELECT 1 UNION ALL SELECT length(toString(${value}))`,
  value => `SELECT 1 LIMIT length(toString(${value}))`,
  value => `SELECT 1 ORDER BY ${value}`,
  value => `SELECT * REPLACE(${value} AS number) FROM numbers(1)`,
  value => `SELECT CAST(${value} AS String)`,
  value => `SELECT if(1, ${value}, ${value})`,
  value => `EXPLAIN SELECT ${value}`,
  value => `DESCRIBE (SELECT ${value})`,
  value => `SELECT * FROM values('a String', toString(${value}))`,
  value => `SELECT * FROM numbers(toUInt64(length(toString(${value}))))`,
  value => value,
  value => `VALUES (${value})`,
]

/** A function that takes something, by its bare name. */
export const BARE_FORMS: ((call: Call) => string)[] = [
  ({ name, args }) => `SELECT arrayMap(${name}, [${args}])`,
  ({ name, args }) => `SELECT arrayMap(\`${name}\`, [${args}])`,
  ({ name, args }) => `SELECT arrayFilter(${name}, [${args}])`,
  ({ name, args }) => `SELECT * APPLY ${name} FROM (SELECT ${args} AS a)`,
  ({ name, args }) => `SELECT * APPLY(${name}) FROM (SELECT ${args} AS a)`,
  ({ name, args }) => `SELECT COLUMNS('a') APPLY "${name}" FROM (SELECT ${args} AS a)`,
  ({ name, args }) => `WITH ${name} AS f SELECT arrayMap(f, [${args}])`,
]

/** Requests that hold one statement. The engine gets the same text from each. */
export const REQUESTS: ((sql: string) => Sent)[] = [
  plain,
  sql => ({ ...plain(''), path: `/?query=${encodeURIComponent(sql)}` }),
  sql => {
    const at = sql.indexOf(' ')
    return { ...plain(sql.slice(at + 1)), path: `/?query=${encodeURIComponent(sql.slice(0, at))}` }
  },
  sql => ({ ...plain(''), body: gzipSync(sql), headers: { 'Content-Encoding': 'gzip' } }),
  sql => ({ ...plain(''), body: brotliCompressSync(sql), headers: { 'Content-Encoding': 'br' } }),
  sql => ({ ...plain(''), body: deflateSync(sql), headers: { 'Content-Encoding': 'deflate' } }),
  sql => plain(`\ufeff\u3000${sql}\u00a0;;\n`),
  sql => ({ ...plain(sql), path: '/?wait_end_of_query=1&default_format=Native&readonly=0&readonly=2' }),
  sql => ({ ...plain(sql), path: '/?database=system' }),
  sql => ({ ...plain(sql), path: '/?enable_analyzer=0&final=1' }),
  sql => ({ ...plain(sql), path: '/?database=default&session_id=canary' }),
]
