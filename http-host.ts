/**
 * HTTP's Host header, as every listener of ours judges it. Each of them answers only to names of its own, so that no page of
 * the web reads it through a name that was pointed here; that holds only where everyone on the way reads the same name.
 * Node takes the first of two Host headers and a proxy may take the last, so two are refused and never chosen from.
 * Sources: RFC 9112 sections 3.2 and 3.2.2, RFC 3986 section 3.2.2.
 */
import { isIPv6 } from 'node:net'

/** A name, an IPv4 address or an IPv6 address in brackets, each with or without a port. No user, no blank, no comma. */
const HOST = /^(?:[a-z0-9._~-]+|\[([0-9a-f:.]+)\])(?::(\d{1,5}))?$/i

const ABSOLUTE_TARGET = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i

/**
 * Whether there is one Host header, with a content that a Host header can have. If not, the answer is 400 (RFC 9112 section
 * 3.2). `rawHeaders` are names and values in turn, as `IncomingMessage.rawHeaders` has them; `headers.host` does not tell.
 * Whose name it is, the caller judges then.
 */
export function hasOneHost(rawHeaders: readonly string[]): boolean {
  let host: string | null = null
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.toLowerCase() !== 'host') continue
    if (host !== null) return false
    host = rawHeaders[at + 1] ?? ''
  }
  return host !== null && isHost(host)
}

/**
 * Whether the target of a request, `IncomingMessage.url`, is of the host that its Host header names. Only the absolute form,
 * `GET http://name/path`, names one; with another name than the Host header it is refused by 400, too.
 */
export function isTargetOf(target: string, host: string): boolean {
  const named = ABSOLUTE_TARGET.exec(target)?.[1]
  return named === undefined || named.toLowerCase() === host.toLowerCase()
}

/**
 * The address that the target of a request names, on `localhost` where it is a path; null for a target that is none (400). A
 * path that begins with two slashes is a path, and names no host.
 */
export function toUrl(target: string): URL | null {
  const text = target.startsWith('/') ? `http://localhost${target}` : target
  return /^https?:\/\//i.test(text) && URL.canParse(text) ? new URL(text) : null
}

function isHost(text: string): boolean {
  const parts = HOST.exec(text)
  if (parts === null) return false
  const [, address, port = '0'] = parts
  return (address === undefined || isIPv6(address)) && Number(port) <= 65_535
}
