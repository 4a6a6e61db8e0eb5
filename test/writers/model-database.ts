/**
 * ClickHouse as the writers see it, in memory and ill: each table with its deduplication tokens, and an insert that may fail
 * before, after or between its tables, keep a token whose rows are lost, or never answer. The ways it fails are those
 * that were reproduced with the real engine: docs/decisions/003-plan-before-insert.md.
 */
import type { Database, RowBlock, SourceRange } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'

/** What an insert does before it ends; `ok` is all of it. The process dies at those that say so. */
export const INSERT_FATES = [
  'ok',
  'refused_to_connect',
  'answer_lost',
  'killed_before',
  'killed_after',
  'killed_between_tables',
  'killed_readings_token_only',
  'killed_rollup_token_only',
] as const
export type InsertFate = (typeof INSERT_FATES)[number]

export interface ModelRow {
  readonly key: string
  readonly position: number
  readonly index: number
}

type TableName = 'readings' | 'state' | 'readings_1m' | 'readings_1h'

interface Table {
  /** How often each row is in it. */
  readonly rows: Map<string, number>
  readonly tokens: Set<string>
}

export interface ModelDatabase {
  readonly database: Database
  rowsOf(table: TableName): ReadonlyMap<string, number>
  /** Calls of the database, in order. */
  readonly calls: string[]
}

/** `nextFate` is asked at each insert; `rowsIn` says which rows a block holds; `isPoison` which of them are refused. */
export function openModelDatabase(options: {
  readonly nextFate: () => InsertFate
  /** The process is gone; nobody hears of the end of this insert. Must return a promise that never settles. */
  readonly kill: () => Promise<never>
  readonly rowsIn: (block: RowBlock) => readonly ModelRow[]
  readonly isPoison?: (row: ModelRow) => boolean
}): ModelDatabase {
  const { nextFate, kill, rowsIn, isPoison = () => false } = options
  const tables: Record<TableName, Table> = {
    readings: { rows: new Map(), tokens: new Set() },
    state: { rows: new Map(), tokens: new Set() },
    readings_1m: { rows: new Map(), tokens: new Set() },
    readings_1h: { rows: new Map(), tokens: new Set() },
  }
  const known = new Map<string, ModelRow>()
  const calls: string[] = []
  const database = {
    insertReadings: insert,
    storedThrough: async (range: SourceRange) =>
      Math.max(
        range.from,
        ...inRange(range)
          .filter(({ key }) => (tables.readings.rows.get(key) ?? 0) > 0)
          .map(({ position }) => position + 1),
      ),
    waitForInserts: async () => {},
    catchUp: async () => {},
    countReadings: async (range: SourceRange) =>
      inRange(range).reduce((sum, row) => sum + (tables.readings.rows.get(row.key) ?? 0), 0),
    storedReadings: async (range: SourceRange) =>
      inRange(range)
        .filter(row => (tables.readings.rows.get(row.key) ?? 0) > 0)
        .map(({ position, index }): [number, number] => [position, index]),
    restoreReadings: async (block: RowBlock, range: SourceRange, fence: () => Promise<void>) => {
      calls.push('restore')
      if (inRange(range).some(row => (tables.readings.rows.get(row.key) ?? 0) > 0)) return
      await fence()
      for (const { key } of rowsIn(block)) add('readings', key)
    },
    repairDerived: async (range: SourceRange) => {
      calls.push('repair')
      const rows = inRange(range).filter(row => (tables.readings.rows.get(row.key) ?? 0) > 0)
      // As in ClickHouse, where all rows share a bucket: a rollup shows how many rows it counts, and not which.
      const lacking = (['readings_1m', 'readings_1h'] as const).filter(
        name => total('readings') - total(name) >= rows.length,
      )
      for (const name of lacking) for (const row of rows) add(name, row.key)
      for (const row of rows) tables.state.rows.set(row.key, 1)
      return lacking.length * rows.length
    },
    repairNewest: async (range: SourceRange) => {
      calls.push('repair')
      const rows = inRange(range).filter(row => (tables.readings.rows.get(row.key) ?? 0) > 0)
      for (const name of ['readings_1m', 'readings_1h'] as const) {
        const lacks = total('readings') - total(name)
        if (lacks > 0 && lacks <= rows.length) for (const row of rows.slice(-lacks)) add(name, row.key)
      }
      for (const row of rows) tables.state.rows.set(row.key, 1)
      return 0
    },
  }
  return { database: database as unknown as Database, rowsOf: table => tables[table].rows, calls }

  async function insert(block: RowBlock, token: string): Promise<void> {
    calls.push(`insert ${token}`)
    const rows = rowsIn(block)
    for (const row of rows) known.set(row.key, row)
    const fate = nextFate()
    if (fate === 'refused_to_connect') throw new SurgetankError('database_unavailable', 'connection refused')
    if (fate === 'killed_before') return kill()
    if (rows.some(isPoison)) throw new SurgetankError('database_refuses_rows', 'a row is refused')
    if (fate === 'killed_readings_token_only') {
      tables.readings.tokens.add(token)
      return kill()
    }
    store('readings', token, rows)
    if (fate === 'killed_between_tables') return kill()
    if (fate === 'killed_rollup_token_only') {
      tables.readings_1m.tokens.add(token)
      return kill()
    }
    for (const table of ['state', 'readings_1m', 'readings_1h'] as const) store(table, token, rows)
    if (fate === 'killed_after') return kill()
    if (fate === 'answer_lost') throw new SurgetankError('database_unavailable', 'socket hang up')
  }

  function store(name: TableName, token: string, rows: readonly ModelRow[]): void {
    const table = tables[name]
    if (table.tokens.has(token)) return
    table.tokens.add(token)
    for (const { key } of rows) add(name, key)
  }

  function add(name: TableName, key: string): void {
    const { rows } = tables[name]
    rows.set(key, (rows.get(key) ?? 0) + 1)
  }

  function total(name: TableName): number {
    return [...tables[name].rows.values()].reduce((sum, count) => sum + count, 0)
  }

  function inRange({ from, fromIndex = 0, to, toIndex = 0 }: SourceRange): ModelRow[] {
    const place = (position: number, index: number) => position * 1_000 + index
    return [...known.values()].filter(({ position, index }) => {
      return place(position, index) >= place(from, fromIndex) && place(position, index) < place(to, toIndex)
    })
  }
}
