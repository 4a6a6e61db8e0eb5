/** The embedded ClickHouse, started, brought to this version's schema, and kept running on the same port. */
import type { Logger } from 'pino'
import { openDatabase } from '../database/clickhouse-database.ts'
import type { DatabaseAccess } from '../database/database.ts'
import { startEmbeddedDatabase } from '../database/embedded/embedded-database.ts'
import { type Child, supervise } from './supervise.ts'

export interface DatabaseChildOptions {
  readonly dataDir: string
  /** 0 for any free one, the same then until the end. */
  readonly port: number
  readonly password: string
  readonly log: Logger
}

export interface DatabaseChild {
  readonly port: number
  readonly access: DatabaseAccess
  stop(): Promise<void>
  kill(): void
}

/** Resolves when it answers and has its schema. Rejects when it cannot be started here at all. */
export async function superviseDatabase({
  dataDir,
  port,
  password,
  log,
}: DatabaseChildOptions): Promise<DatabaseChild> {
  let portTaken = port
  const supervised = await supervise({ name: 'database', log, start })
  return { port: portTaken, access: access(), stop: supervised.stop, kill: supervised.kill }

  async function start(): Promise<Child> {
    let ended = (_how: string) => {}
    const end = new Promise<string>(resolve => (ended = resolve))
    const onExit = ({ code, signal, stderr }: { code: number | null; signal: string | null; stderr: string }) => {
      if (stderr !== '') log.warn({ stderr }, 'the engine wrote before it ended')
      ended(String(signal ?? code))
    }
    const child = await startEmbeddedDatabase({ dataDir, port: portTaken, password, onExit })
    portTaken = child.port
    try {
      await migrate()
    } catch (error) {
      child.kill()
      throw error
    }
    return { ended: end, stop: child.stop, kill: child.kill }
  }

  async function migrate(): Promise<void> {
    const database = openDatabase(access())
    await database.migrate().finally(() => database.close())
  }

  function access(): DatabaseAccess {
    return { url: `http://127.0.0.1:${portTaken}`, user: 'surgetank', password }
  }
}
