/** Starting `redis-unit-child.ts` from its compiled form. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { Asked } from './redis-unit-child.ts'

const CHILD = fileURLToPath(new URL('../../dist/test/space/redis-unit-child.js', import.meta.url))

export interface UnitChild {
  readonly unit: string
  ask(asked: Asked): Promise<unknown>
  kill(): Promise<void>
  freeze(): void
  thaw(): void
}

/** Killed when the test ends. */
export async function startUnit(url: string, prefix: string): Promise<UnitChild> {
  const child = fork(CHILD, [url, prefix])
  const exited = once(child, 'exit')
  onTestFinished(kill)
  const [{ unit }] = (await once(child, 'message')) as [{ unit: string }]
  return { unit, ask, kill, freeze: () => child.kill('SIGSTOP'), thaw: () => child.kill('SIGCONT') }

  async function ask(asked: Asked): Promise<unknown> {
    const told = once(child, 'message')
    child.send(asked)
    const [answered] = (await told) as [{ answer?: unknown; error?: string }]
    if (answered.error !== undefined) throw new Error(answered.error)
    return answered.answer
  }

  async function kill(): Promise<void> {
    child.kill('SIGKILL')
    await exited
  }
}
