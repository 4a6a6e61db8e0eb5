/**
 * CPU time of processes from outside, so that what is measured does not measure itself. Linux: /proc; elsewhere unknown.
 */
import { readdirSync, readFileSync } from 'node:fs'

export interface CpuTime {
  readonly userUs: number
  readonly sysUs: number
}

/** The kernel counts in hundredths of a second on every Linux that Node runs on (USER_HZ). */
const TICK_US = 10_000

/** What the process has used so far, all its threads; null when it is gone or the kernel does not say. */
function readCpu(pid: number): CpuTime | null {
  const fields = statOf(pid)
  return fields === null ? null : { userUs: Number(fields[11]) * TICK_US, sysUs: Number(fields[12]) * TICK_US }
}

export function cpuSince(before: CpuTime | null, after: CpuTime | null): CpuTime | null {
  if (before === null || after === null) return null
  return { userUs: after.userUs - before.userUs, sysUs: after.sysUs - before.sysUs }
}

/** User and system time of several processes; those that are gone count nothing. Null when nothing is known of any. */
export function readCpuOfAll(pids: readonly number[]): CpuTime | null {
  const times = pids.map(readCpu).filter(time => time !== null)
  if (times.length === 0) return null
  return {
    userUs: times.reduce((sum, time) => sum + time.userUs, 0),
    sysUs: times.reduce((sum, time) => sum + time.sysUs, 0),
  }
}

/** The process and everything it started that still runs, itself first. */
export function processTree(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    const id = Number(name)
    const fields = Number.isInteger(id) ? statOf(id) : null
    if (fields !== null) parents.set(id, Number(fields[1]))
  }
  const tree = [pid]
  for (const ancestor of tree) for (const [id, parent] of parents) if (parent === ancestor) tree.push(id)
  return tree
}

/** The one process of the tree whose command line names this script. */
export function findByScript(pids: readonly number[], script: string): number | null {
  return pids.find(pid => readText(`/proc/${pid}/cmdline`)?.includes(script)) ?? null
}

/** Fields after the command's name, from the state on: proc(5), field 3. */
function statOf(pid: number): string[] | null {
  const stat = readText(`/proc/${pid}/stat`)
  return stat === null ? null : stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
