/** Paging by keyset: where the last page ended, as an opaque text that goes back in `cursor`. */
import type { FastifyReply, FastifyRequest } from 'fastify'

export function encodeCursor(parts: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/** The parts, or null when this is no cursor of ours. Their meaning is the route's to check. */
export function decodeCursor(cursor: string): readonly unknown[] | null {
  try {
    const parts: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    return Array.isArray(parts) ? parts : null
  } catch {
    return null
  }
}

/** Says where the next page is in the Link header too (RFC 8288), as the path of this request with the other cursor. */
export function linkNext(request: FastifyRequest, reply: FastifyReply, next: string | null): void {
  if (next === null) return
  const { pathname, searchParams } = new URL(request.url, 'http://localhost')
  searchParams.set('cursor', next)
  reply.header('link', `<${pathname}?${searchParams}>; rel="next"`)
}
