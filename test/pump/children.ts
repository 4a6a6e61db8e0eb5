/** Starting `pump-child.ts` from its compiled form, and the tools of the machine that some tests need. */
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const CHILD = fileURLToPath(new URL('../../dist/test/pump/pump-child.js', import.meta.url))
const SHIM = fileURLToPath(new URL('./sync-shim.c', import.meta.url))

export function startChild(role: string, dir: string, number = 0, env: Record<string, string> = {}): ChildProcess {
  return fork(CHILD, [role, dir, String(number)], { env: { ...process.env, ...env } })
}

/** The next message of a child that has `key`; rejects when the child ends before. */
export function told<T>(child: ChildProcess, key: string): Promise<T> {
  return new Promise((resolve, reject) => {
    child.on('message', hear)
    // After its last message, which an 'exit' may overtake.
    child.once('disconnect', fail)

    function hear(message: unknown): void {
      if (!(key in (message as object))) return
      child.off('message', hear)
      child.off('disconnect', fail)
      resolve(message as T)
    }
    function fail(): void {
      reject(new Error(`The child ended before it told ${key}: ${child.exitCode ?? child.signalCode}`))
    }
  })
}

export async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** What a child told that ran on a disk of `megabytes` of its own. */
export async function onSmallDisk<T>(role: string, dir: string, megabytes: number): Promise<T> {
  const mount = `mount -t tmpfs -o size=${megabytes}m tmpfs "$1" && exec "$2" "$3" "$4" "$1"`
  const args = ['-Urm', 'sh', '-c', mount, 'sh', dir, process.execPath, CHILD, role]
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.on('data', (bytes: Buffer) => {
    out += bytes.toString()
  })
  child.stderr.on('data', (bytes: Buffer) => {
    err += bytes.toString()
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`The child ended with ${code}: ${err.slice(-2_000)}`)
  return JSON.parse(out) as T
}

/** Whether a process may have a disk of its own here. */
export function canMount(): boolean {
  return works('unshare', ['-Urm', 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs /mnt'])
}

/** Compiles the shim into `dir`; null where there is no compiler, or nothing can be preloaded. */
export function buildShim(dir: string): string | null {
  const shim = join(dir, 'sync-shim.so')
  if (process.platform !== 'linux') return null
  return works('gcc', ['-shared', '-fPIC', '-O1', '-o', shim, SHIM, '-ldl']) ? shim : null
}

function works(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
