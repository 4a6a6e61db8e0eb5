/**
 * The columns that our tables have had, version by version: by them a table is known, whatever the number says that is written
 * in `migrations`. Pure.
 */
import { SurgetankError } from '../errors.ts'

/** A table as a server shows it: names and types of its columns, in any order. */
export interface FoundTable {
  readonly database: string
  readonly name: string
  readonly columns: ReadonlyMap<string, string>
}

const KIND = "Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5)"
const NAME = 'LowCardinality(String)'

const READINGS = {
  device: NAME,
  metric: NAME,
  kind: KIND,
  value: 'Nullable(Float64)',
  value_str: 'String',
  source: NAME,
  source_position: 'UInt64',
  source_index: 'UInt32',
}

const newestOf = (time: string) =>
  `SimpleAggregateFunction(max, Tuple(ts ${time}, received_at ${time}, kind ${KIND}, value Float64, value_str String))`
const MILLIS = "DateTime64(3, 'UTC')"
const MICROS = "DateTime64(6, 'UTC')"

const ROLLUP = {
  metric: NAME,
  device: NAME,
  bucket: "DateTime('UTC')",
  readings: 'SimpleAggregateFunction(sum, UInt64)',
  value_sum: 'SimpleAggregateFunction(sum, Float64)',
  value_min: 'SimpleAggregateFunction(min, Float64)',
  value_max: 'SimpleAggregateFunction(max, Float64)',
}
const ROLLUPS = {
  'versions 2 to 4': { ...ROLLUP, by_source: 'SimpleAggregateFunction(sumMap, Map(String, UInt64))' },
  'version 1': ROLLUP,
}

/** Each form a table has had, by the versions that made it; the newest first. */
const FORMS: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>> = {
  readings: {
    'version 4': {
      ...READINGS,
      ts: MICROS,
      received_delta: 'Int64',
      sent_delta: 'Nullable(Int64)',
      received_at: MICROS,
      sent_ts: 'Nullable(Int64)',
    },
    'versions 1 to 3': { ...READINGS, ts: MILLIS, received_at: MILLIS, sent_ts: 'Int64' },
  },
  state: {
    'version 4': {
      device: NAME,
      metric: NAME,
      newest: newestOf(MICROS),
      seen_at: `SimpleAggregateFunction(max, ${MICROS})`,
    },
    'versions 1 to 3': {
      device: NAME,
      metric: NAME,
      newest: newestOf(MILLIS),
      seen_at: `SimpleAggregateFunction(max, ${MILLIS})`,
    },
    // The first commit that ran, 189cb15: `seen_at` was added to version 1 when it had run already.
    'the first of version 1': { device: NAME, metric: NAME, newest: newestOf(MILLIS) },
  },
  readings_1m: ROLLUPS,
  readings_1h: ROLLUPS,
  by_source_from: { 'versions 2 to 4': { source: NAME, source_position: 'UInt64', source_index: 'UInt32' } },
  migrations: { 'versions 1 to 4': { version: 'UInt32', name: 'String', applied_at: MILLIS } },
}

/** The versions whose columns a table has, such as `version 4`; null for a table that is none of ours. `database_changed` for one that is of no version. */
export function formOf({ database, name, columns }: FoundTable): string | SurgetankError | null {
  const forms = Object.entries(FORMS[name] ?? {})
  if (forms.length === 0) return null
  const found = forms.find(([, form]) => differences(columns, form).length === 0)
  if (found !== undefined) return found[0]
  // What is said is the way to the form that it is nearest to.
  const [[nearest, form]] = forms.sort(
    ([, a], [, b]) => differences(columns, a).length - differences(columns, b).length,
  ) as [[string, Readonly<Record<string, string>>]]
  return new SurgetankError(
    'database_changed',
    `${database}.${name} is nearest to that of ${nearest}, but ${differences(columns, form).join('; ')}. Nothing was changed: undo that by ALTER TABLE, or move the rows that you need elsewhere, and start again.`,
  )
}

function differences(columns: ReadonlyMap<string, string>, form: Readonly<Record<string, string>>): string[] {
  const lacking = Object.entries(form).flatMap(([name, type]) => {
    const found = columns.get(name)
    if (found === undefined) return [`it lacks the column ${name} ${type}`]
    return bare(found) === bare(type) ? [] : [`its column ${name} is ${found}, not ${type}`]
  })
  const added = [...columns.keys()].filter(name => !(name in form)).map(name => `it has the column ${name} besides`)
  return [...lacking, ...added]
}

/** Servers break long types into lines in their own way. */
function bare(type: string): string {
  return type.replace(/[\s`]+/g, '')
}
