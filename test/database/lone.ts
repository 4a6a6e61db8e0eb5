/** An embedded database with a parent of its own, which a test may kill, or run without the right to raise walls. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Walls } from '../../database/embedded/walls/walls.ts'

export interface Lone {
  readonly parent: ChildProcess
  /** Of the engine's process. */
  readonly pid: number
  readonly walls: Walls
  /** The SQL port. */
  readonly port: number
  /** The engine's own socket. */
  readonly own: string
}

/** `before` are the words of a program that runs the parent. */
export async function startLone(
  script: './lone-parent.mjs' | './open-parent.mjs' | './without-walls.mjs',
  folder: string,
  before: readonly string[] = [],
): Promise<Lone> {
  const words = [...before, process.execPath, fileURLToPath(new URL(script, import.meta.url)), folder]
  const parent = spawn(words[0] as string, words.slice(1), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const [message] = (await once(parent, 'message')) as [Omit<Lone, 'parent'>]
  return { ...message, parent }
}

/** Kills it; its engine ends with it. */
export async function end(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
