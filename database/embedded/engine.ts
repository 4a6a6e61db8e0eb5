/**
 * The border to the chDB engine: the native functions that are used, typed, and nothing else of it.
 *
 * Invariants: a connection runs one statement at a time and is closed only when that has ended (a native thread holds
 * it); settings, parameters and temporary tables live and die with their connection; one folder, one process.
 * The functions are those of chdb 3.4.0, which is pinned: `DurableClassifyAsync` is exported but not documented.
 */
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { EngineError, toEngineError } from './engine-error.ts'

/** What a statement gave. */
export interface EngineResult {
  readonly bytes: Buffer
  /** Rows read; of an insert from a file, the rows inserted. */
  readonly rows: number
  readonly bytesRead: number
}

/** What the engine's parser says about a text. `kind` 0 only reads; every other one changes or controls something. */
export interface Classified {
  readonly statements: number
  readonly kind: number
}

export interface EngineConnection {
  run(sql: string, format?: string): Promise<EngineResult>
  /** The result in chunks, as it is computed. Stopping early ends the statement. */
  stream(sql: string, format: string): AsyncGenerator<Buffer>
  /** Null when this build of the engine cannot tell. */
  classify(sql: string): Promise<Classified | null>
  close(): void
}

export interface Engine {
  readonly version: string
  /** The first one, which is never closed: the engine ends with its last. */
  readonly control: EngineConnection
  connect(): EngineConnection
}

interface Native {
  EngineVersion(): string
  CreateConnection(folder: string): object
  CloseConnection(connection: object): void
  QueryAsyncConnection(connection: object, sql: string, format: string): Promise<NativeResult>
  StreamQuery(connection: object, sql: string, format: string): object
  StreamFetch(stream: object): Promise<{ bytes: Buffer; numRows: number; done: boolean }>
  StreamCancel(stream: object): void
  DurableClassifyAsync?(
    connection: object,
    sql: string,
    database: null,
  ): Promise<{ statementCount: number; queryClass: number }>
}

interface NativeResult {
  readonly bytes: Buffer
  readonly rowsRead: number
  readonly bytesRead: number
}

/** The package of the binding for each platform, as chdb's own loader resolves it. */
const PLATFORM_PACKAGES: Readonly<Record<string, string>> = {
  'darwin-arm64': '@chdb/lib-darwin-arm64',
  'darwin-x64': '@chdb/lib-darwin-x64',
  'linux-x64': '@chdb/lib-linux-x64-gnu',
  'linux-arm64': '@chdb/lib-linux-arm64-gnu',
}

/** The folders of the packages that the engine is made of, and nothing else is read of it. Empty where one is missing. */
export function enginePackages(): string[] {
  try {
    const chdb = createRequire(import.meta.url).resolve('chdb')
    const native = createRequire(chdb).resolve(PLATFORM_PACKAGES[`${process.platform}-${process.arch}`] ?? '')
    return [dirname(chdb), dirname(native)]
  } catch {
    return []
  }
}

/** Loads the engine's libraries, and opens nothing. Throws what keeps them from being loaded. */
export function loadEngine(): void {
  loadNative()
}

/** Opens the engine on a folder. Throws EngineError 76 when the folder is held by another process or cannot be used. */
export function openEngine(folder: string): Engine {
  const native = loadNative()
  const control = openConnection(native, connectNative(native, folder))
  return {
    version: native.EngineVersion(),
    control,
    connect: () => openConnection(native, connectNative(native, folder)),
  }
}

/** chdb's own module is passed by: it opens a process-wide default connection and takes over signals. */
function loadNative(): Native {
  const name = PLATFORM_PACKAGES[`${process.platform}-${process.arch}`]
  if (name === undefined) {
    throw new EngineError(
      1001,
      `chDB has no build for ${process.platform} on ${process.arch}; set CLICKHOUSE_URL to use a server`,
    )
  }
  const chdb = createRequire(import.meta.url).resolve('chdb')
  return createRequire(chdb)(name) as Native
}

function connectNative(native: Native, folder: string): object {
  try {
    return native.CreateConnection(folder)
  } catch (error) {
    // The engine writes its reason to stderr only; a held lock is by far the most frequent one.
    throw new EngineError(
      76,
      `The engine cannot open its data folder: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

function openConnection(native: Native, connection: object): EngineConnection {
  let closed = false
  return { run, stream, classify, close }

  async function run(sql: string, format = 'TabSeparated'): Promise<EngineResult> {
    try {
      const { bytes, rowsRead, bytesRead } = await native.QueryAsyncConnection(connection, sql, format)
      return { bytes, rows: rowsRead, bytesRead }
    } catch (error) {
      throw toEngineError(error)
    }
  }

  async function* stream(sql: string, format: string): AsyncGenerator<Buffer> {
    const cursor = native.StreamQuery(connection, sql, format)
    try {
      for (;;) {
        const { bytes, done } = await native.StreamFetch(cursor)
        if (done) return
        yield bytes
      }
    } catch (error) {
      throw toEngineError(error)
    } finally {
      native.StreamCancel(cursor)
    }
  }

  async function classify(sql: string): Promise<Classified | null> {
    if (native.DurableClassifyAsync === undefined) return null
    const { statementCount, queryClass } = await native.DurableClassifyAsync(connection, sql, null)
    return { statements: statementCount, kind: queryClass }
  }

  function close(): void {
    if (closed) return
    closed = true
    native.CloseConnection(connection)
  }
}
