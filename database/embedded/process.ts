/**
 * The child process that owns the embedded engine: `embedded-database.ts` forks it behind the walls, hears that it is
 * awake, tells it what to open, and hears when it is ready or why it is not. Its arguments are its folder, and the walls.
 * It listens on two Unix sockets and on no port (sockets.ts).
 *
 * It never outlives its parent: the end of their channel (channel.ts) is the parent's end, however that died, and it ends at once
 * then. On SIGTERM it first lets end what runs. Its end is a signal, never an exit: the engine's destructors can wait for
 * one of its own threads for ever, and abort when a connection is open. The data survives a kill.
 * SIGINT of a terminal reaches the whole group and is left to the parent, which drains in order.
 */
import { mkdirSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { keepFilesPrivate } from '../../private-files.ts'
import { openAnalystServer } from './analyst-server.ts'
import type { AnalystLimits } from './analyst-settings.ts'
import { CHANNEL, openChannel } from './channel.ts'
import { type Engine, loadEngine, openEngine } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { openExecutor } from './execute.ts'
import { closePipesByName } from './own-pipes.ts'
import { openOwnServer, type SocketServer } from './server.ts'
import type { Sockets } from './sockets.ts'
import { openSpool } from './spool.ts'
import type { AwakeMessage } from './walls/fork.ts'
import { keepOwnThreads, lookFromInside } from './walls/look.ts'
import { noneStands, type Walls } from './walls/walls.ts'

/** The first and only message of the parent. */
export interface OpenMessage {
  readonly sockets: Sockets
  readonly limits: AnalystLimits
  readonly folderMsMax: number
}

/** The first message of the child after AwakeMessage. `why` names what was in the way. */
export type ChildMessage =
  | { readonly ready: true; readonly version: string }
  | { readonly ready: false; readonly why: 'folder_in_use' | 'failed'; readonly detail: string }

const STDERR = 2
const LOCK_EVERY_MS = 200
const DRAIN_MS = 3_000
const ABORT_MS = 2_000

const parent = openChannel(new Socket({ fd: CHANNEL }))
let servers: SocketServer[] = []
let ending = false

keepFilesPrivate()
// Before the engine makes its threads, which inherit it: a spike of telemetry has the CPU, and inserts and queries what is left.
setPriority(constants.priority.PRIORITY_LOW)
process.on('SIGINT', () => {})
process.on('SIGTERM', () => void end())
void parent.closed.then(endNow)
process.on('uncaughtException', error => {
  writeSync(STDERR, `${error.stack}\n`)
  endNow()
})
await wake()
const message = await parent.next()
if (message === null) endNow()
else await open(message as unknown as OpenMessage)

/**
 * The engine's folder is where this process is from here on, and `.` to the engine: what it tells of its files names nothing
 * of the machine. Any other relative path it puts before itself when it syncs a part's folder, and does not find that then.
 */
async function wake(): Promise<void> {
  try {
    const [folder = '.', raised = ''] = process.argv.slice(2)
    const walls = JSON.parse(raised) as Walls
    mkdirSync(join(folder, 'engine'), { recursive: true })
    process.chdir(join(folder, 'engine'))
    // What cannot be loaded behind the walls ends this process before it is awake: its parent then starts it without.
    if (!noneStands(walls)) loadEngine()
    if (walls.files === true) keepOwnThreads()
    await parent.send<AwakeMessage>({ walls: await lookFromInside(walls) })
  } catch (error) {
    writeSync(STDERR, `${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  }
}

async function open({ sockets, limits, folderMsMax }: OpenMessage): Promise<void> {
  try {
    const engine = await openFreedEngine('.', folderMsMax)
    if (engine === null) return
    // Beside the engine's folder, not in it: the engine clears folders of its own at start.
    const executor = await openExecutor({ engine, spool: openSpool('../tmp'), limits })
    servers = await Promise.all([openOwnServer(executor, sockets.own), openAnalystServer(executor, sockets.analysts)])
    closePipesByName()
    await parent.send<ChildMessage>({ ready: true, version: engine.version })
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    await parent.send<ChildMessage>({ ready: false, why: whyOf(error), detail })
    endNow()
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
  return error instanceof EngineError && error.code === 76 ? 'folder_in_use' : 'failed'
}

/** Ends this process by SIGTERM, or by SIGKILL when a statement cannot be ended in time. */
async function end(): Promise<void> {
  if (ending) return
  ending = true
  await Promise.all(servers.map(server => server.drain(DRAIN_MS)))
  setTimeout(endNow, ABORT_MS)
  await Promise.all(servers.map(server => server.abort()))
  process.removeAllListeners('SIGTERM')
  process.kill(process.pid, 'SIGTERM')
}

function endNow(): void {
  process.kill(process.pid, 'SIGKILL')
}
