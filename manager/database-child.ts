/**
 * The embedded ClickHouse, started, brought to this version's schema where that takes no time, and kept running.
 * Where rows must be written anew, the engine is ready as it is: that goes on beside everything else (schema-part.ts).
 */
import type { Logger } from 'pino'
import { openDatabase } from '../database/clickhouse-database.ts'
import type { DatabaseAccess } from '../database/database.ts'
import { type EmbeddedExit, startEmbeddedDatabase } from '../database/embedded/embedded-database.ts'
import { openSocketPlace } from '../database/embedded/sockets.ts'
import {
  allMissing,
  allStand,
  describeWalls,
  everStood,
  WALLS_ADVICE,
  type Walls,
} from '../database/embedded/walls/walls.ts'
import { SurgetankError } from '../errors.ts'
import { embeddedAccess } from './adapters.ts'
import { type Child, type ChildEnd, type Supervised, supervise } from './supervise.ts'

export interface DatabaseChildOptions {
  readonly dataDir: string
  /** Called once, before there are any sockets in it: the other commands find them there. */
  readonly placed?: (socketFolder: string) => void
  readonly log: Logger
}

export interface DatabaseChild extends Pick<Supervised, 'expectEnd' | 'stop' | 'kill'> {
  readonly access: DatabaseAccess
  /** Where the SQL port asks for analysts. */
  readonly analystsSocket: string
  /** Of the engine that was started last. */
  readonly walls: Walls
}

/** Resolves when it answers, and has its schema or all that can be brought to it. Rejects when it cannot be started here at all. */
export async function superviseDatabase({ dataDir, placed, log }: DatabaseChildOptions): Promise<DatabaseChild> {
  const { folder: socketFolder, sockets, close } = await openSocketPlace(dataDir)
  const access = embeddedAccess(socketFolder)
  let walls = allMissing('it has not started')
  let stood = walls
  const { expectEnd, ...supervised } = await superviseHere()
  return {
    access,
    analystsSocket: sockets.analysts,
    get walls() {
      return walls
    },
    expectEnd,
    stop,
    kill,
  }

  async function superviseHere(): Promise<Supervised> {
    try {
      placed?.(socketFolder)
      return await supervise({ name: 'database', log, start })
    } catch (error) {
      close()
      throw error
    }
  }

  async function stop(): Promise<void> {
    await supervised.stop()
    close()
  }

  function kill(): void {
    supervised.kill()
    close()
  }

  async function start(signal: AbortSignal): Promise<Child> {
    let tellEnd = (_end: ChildEnd) => {}
    const ended = new Promise<ChildEnd>(resolve => (tellEnd = resolve))
    const onExit = ({ code, signal: by, stderr }: EmbeddedExit) => {
      if (stderr !== '') log.warn({ stderr }, 'the engine wrote before it ended')
      tellEnd({ how: String(by ?? code), error: null })
    }
    const child = await startEmbeddedDatabase({ dataDir, socketFolder, stood, onExit }).catch(tellLost)
    walls = child.walls
    stood = everStood(stood, walls)
    tellWalls(walls, log)
    try {
      signal.throwIfAborted()
      await migrate()
    } catch (error) {
      child.kill()
      await ended
      throw error
    }
    return { ended, stop: child.stop, kill: child.kill }
  }

  /** Its end and the next start are told as of any child: that it is for this reason must not be overlooked. */
  function tellLost(error: unknown): never {
    if (error instanceof SurgetankError && error.code === 'walls_lost')
      log.error({ advice: WALLS_ADVICE }, `the SQL engine is not started without its walls: ${error.detail}`)
    throw error
  }

  async function migrate(): Promise<void> {
    const database = openDatabase(access)
    try {
      const { rewrite } = await database.examine()
      if (rewrite === null) await database.migrate()
    } finally {
      await database.close()
    }
  }
}

function tellWalls(walls: Walls, log: Logger): void {
  const sentence = `SQL engine: ${describeWalls(walls)}`
  if (allStand(walls)) log.info(sentence)
  else log.warn({ advice: WALLS_ADVICE }, sentence)
}
