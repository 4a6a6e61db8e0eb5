/**
 * Connections of analysts, kept between statements that want the same database and settings: to open one and prepare it costs
 * as much as a cheap SELECT. Nothing of a statement stays on one: it is read-only before it is first used, an analyst's statement
 * is one SELECT or its like, parameters are never kept, and after any failure the connection is closed.
 */
import type { Setting } from './analyst-settings.ts'
import type { EngineConnection } from './engine.ts'

/** How a connection is to be prepared, and for whom. */
export interface Preparation {
  readonly database: string | null
  readonly settings: readonly Setting[]
  readonly params: readonly Setting[]
  /** What was cut off in its middle leaves no connection behind. */
  readonly gone: AbortSignal
}

export interface KeptConnections {
  /** `prepare` is called for a new one, and resolves with whether another may use it after this. Rejects as either does. */
  use<Result>(
    preparation: Preparation,
    prepare: (connection: EngineConnection) => Promise<boolean>,
    work: (connection: EngineConnection) => Promise<Result>,
  ): Promise<Result>
}

interface Kept {
  readonly key: string
  readonly connection: EngineConnection
  readonly timer: NodeJS.Timeout
}

const KEPT_MAX = 8
const KEPT_MS_MAX = 10_000

export function openKeptConnections(connect: () => EngineConnection): KeptConnections {
  const kept = new Set<Kept>()
  return { use }

  async function use<Result>(
    { database, settings, params, gone }: Preparation,
    prepare: (connection: EngineConnection) => Promise<boolean>,
    work: (connection: EngineConnection) => Promise<Result>,
  ): Promise<Result> {
    const key = params.length > 0 ? null : JSON.stringify([database, settings])
    const known = key === null ? null : take(key)
    const connection = known ?? connect()
    let isGood = false
    try {
      const isPlain = known !== null || (await prepare(connection))
      const result = await work(connection)
      isGood = isPlain && !gone.aborted
      return result
    } finally {
      if (isGood && key !== null && kept.size < KEPT_MAX) keep(key, connection)
      else connection.close()
    }
  }

  function take(key: string): EngineConnection | null {
    for (const one of kept) {
      if (one.key !== key) continue
      clearTimeout(one.timer)
      kept.delete(one)
      return one.connection
    }
    return null
  }

  function keep(key: string, connection: EngineConnection): void {
    const end = () => {
      kept.delete(one)
      connection.close()
    }
    const one: Kept = { key, connection, timer: setTimeout(end, KEPT_MS_MAX) }
    kept.add(one)
  }
}
