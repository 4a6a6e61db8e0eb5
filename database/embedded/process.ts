/**
 * The child process that owns the embedded engine: `embedded-database.ts` forks it, tells it what to open, and hears
 * when it is ready or why it is not.
 *
 * It never outlives its parent: the end of the IPC channel is the parent's end, however that died. On SIGTERM it ends
 * what runs and closes every connection before it exits, because the engine aborts a process that exits with open ones.
 * SIGINT of a terminal reaches the whole group and is left to the parent, which drains in order.
 */
import { mkdirSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { AnalystLimits } from './analyst.ts'
import { type Engine, openEngine } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { type Executor, openExecutor } from './execute.ts'
import { openSqlServer, type SqlServer } from './server.ts'
import { openSpool } from './spool.ts'

/** The first and only message of the parent. */
export interface OpenMessage {
  readonly folder: string
  readonly port: number
  readonly password: string
  readonly limits: AnalystLimits
  readonly folderMsMax: number
}

/** The first message of the child. `why` names what was in the way. */
export type ChildMessage =
  | { readonly ready: true; readonly port: number; readonly version: string }
  | { readonly ready: false; readonly why: 'folder_in_use' | 'port_in_use' | 'failed'; readonly detail: string }

const LOCK_EVERY_MS = 200
const DRAIN_MS = 3_000

let server: SqlServer | null = null
let executor: Executor | null = null
let engine: Engine | null = null
let ending = false

// Before the engine makes its threads, which inherit it: a spike of telemetry has the CPU, and inserts and queries what is left.
setPriority(constants.priority.PRIORITY_LOW)
process.on('SIGINT', () => {})
process.on('SIGTERM', () => void end(DRAIN_MS))
process.once('disconnect', () => void end(0))
process.once('message', (message: OpenMessage) => void open(message))

async function open({ folder, port, password, limits, folderMsMax }: OpenMessage): Promise<void> {
  try {
    mkdirSync(join(folder, 'engine'), { recursive: true })
    engine = await openFreedEngine(join(folder, 'engine'), folderMsMax)
    if (engine === null) return
    // Beside the engine's folder, not in it: the engine clears folders of its own at start.
    executor = await openExecutor({ engine, spool: openSpool(join(folder, 'tmp')), limits })
    server = await openSqlServer({ executor, password, port })
    tell({ ready: true, port: server.port, version: engine.version })
  } catch (error) {
    tell({ ready: false, why: whyOf(error), detail: error instanceof Error ? error.message : String(error) })
    await end(0, 1)
  }
}

/** Null when this process is to end before the folder is free. */
async function openFreedEngine(folder: string, msMax: number): Promise<Engine | null> {
  const giveUpAt = Date.now() + msMax
  while (!ending) {
    try {
      return openEngine(folder)
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== 76 || Date.now() > giveUpAt) throw error
      await pause(LOCK_EVERY_MS)
    }
  }
  return null
}

function whyOf(error: unknown): (ChildMessage & { ready: false })['why'] {
  if (error instanceof EngineError && error.code === 76) return 'folder_in_use'
  return (error as NodeJS.ErrnoException).code === 'EADDRINUSE' ? 'port_in_use' : 'failed'
}

function tell(message: ChildMessage): void {
  if (process.connected) process.send?.(message)
}

/** Ends this process. A statement that cannot be ended in time does not hold it up: the data survives a kill. */
async function end(waitMs: number, code = 0): Promise<void> {
  if (ending) return
  ending = true
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), waitMs + 2_000).unref()
  await server?.close(waitMs)
  executor?.close()
  engine?.close()
  process.exit(code)
}
