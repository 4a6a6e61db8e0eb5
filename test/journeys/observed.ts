/** What is seen of a running system from outside: its metrics, its readiness, its API, the memory of its processes. */
import { readFileSync } from 'node:fs'
import type { SystemPorts } from '../crash/system.ts'

/** The value of a metric without labels; NaN when there is none. */
export async function metric(ports: SystemPorts, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${ports.http}/metrics`)).text()
  const [, value = 'NaN'] = new RegExp(`^${name} (\\S+)$`, 'm').exec(text) ?? []
  return value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value)
}

export interface Readiness {
  readonly status: number
  readonly checks: Readonly<Record<string, { readonly ok: boolean; readonly detail: string } | undefined>>
}

export async function readiness(ports: SystemPorts): Promise<Readiness> {
  const response = await fetch(`http://127.0.0.1:${ports.http}/readyz`)
  const { checks } = (await response.json()) as Pick<Readiness, 'checks'>
  return { status: response.status, checks }
}

/** Rows of a query, as arrays of columns. */
export async function sql(ports: SystemPorts, statement: string): Promise<unknown[][]> {
  const body = `${statement} FORMAT JSONCompactEachRow`
  const response = await fetch(`http://127.0.0.1:${ports.sql}/`, { method: 'POST', body })
  const text = await response.text()
  if (!response.ok) throw new Error(text)
  return text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as unknown[])
}

/** Resident memory of a process, MB. */
export function rssMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
