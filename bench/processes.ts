/** Starts the processes of the bench, and makes sure that none outlives it. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** A script beside this one, with a channel. Its stderr is the bench's own. */
export function startScript(script: string): ChildProcess {
  return track(fork(new URL(script, import.meta.url), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }))
}

export function track(child: ChildProcess): ChildProcess {
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}

/** The next message. Rejects when the process ends first, or after `waitMs`. */
export async function nextMessage<T>(child: ChildProcess, waitMs: number): Promise<T> {
  const abort = new AbortController()
  try {
    const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(waitMs)])
    const message = once(child, 'message', { signal }).then(([value]) => value as T)
    const end = once(child, 'exit', { signal }).then(([code]) => {
      throw new Error(`A process of the bench ended early (${code}).`)
    })
    return await Promise.race([message, end])
  } finally {
    abort.abort()
  }
}

/** Ends it, and waits until it is gone: by SIGTERM, and by SIGKILL after `waitMs`. */
export async function endProcess(child: ChildProcess, waitMs = 15_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), waitMs)
  await gone
  clearTimeout(timer)
}

export const START_MS_MAX = 60_000

/** Waits until what the process prints matches; later output is let go. Rejects when it ends first, or takes too long. */
export function readOutput(child: ChildProcess, wanted: RegExp): Promise<RegExpExecArray> {
  let text = ''
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`A process was not ready in time:\n${text}`)), START_MS_MAX)
    child.once('exit', code => reject(new Error(`A process ended early (${code}):\n${text}`)))
    child.stdout?.on('data', chunk => {
      text += chunk
      const match = wanted.exec(text)
      if (match === null) return
      clearTimeout(timer)
      child.stdout?.removeAllListeners('data').resume()
      resolve(match)
    })
  })
}

export function pidOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new Error('A process of the bench could not be started.')
  return child.pid
}
