import type { ChildProcess } from 'node:child_process'

/** Asks a child process to end, and ends it when it has not after `msMax`. Resolves with `exited`, its end. */
export async function stopChild(child: ChildProcess, exited: Promise<unknown>, msMax: number): Promise<void> {
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), msMax)
  await exited
  clearTimeout(timer)
}
