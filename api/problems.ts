/**
 * Problems: every error as RFC 9457 `application/problem+json`, from the catalogue of errors and a few of HTTP's own.
 *
 * Invariant: a caller sees sentences of the catalogue and what a route chose to say, never a foreign error's text.
 */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { ERRORS, type ErrorCode, SurgetankError } from '../errors.ts'
import type { Server } from './api.ts'
import { SECURITY_HEADERS } from './guards.ts'

/** What only HTTP knows. */
const HTTP_PROBLEMS = {
  not_found: { status: 404, title: 'There is nothing at this path.' },
  method_not_allowed: { status: 405, title: 'This path is only read: GET or HEAD.' },
  wrong_host: { status: 421, title: 'The Host header names another server than this one.' },
  internal: { status: 500, title: 'Something failed here; the log says what.' },
} as const

export type ProblemCode = ErrorCode | keyof typeof HTTP_PROBLEMS

/** One parameter that does not fit, as a JSON pointer into the request. */
export interface InvalidPart {
  readonly pointer: string
  readonly detail: string
}

/** A problem that a route found, with words for the caller. */
export class ApiProblem extends Error {
  readonly code: ProblemCode
  readonly detail: string
  readonly parts: readonly InvalidPart[]

  constructor(code: ProblemCode, detail: string, parts: readonly InvalidPart[] = []) {
    super(detail)
    this.name = 'ApiProblem'
    this.code = code
    this.detail = detail
    this.parts = parts
  }
}

/** A query parameter with a value that it cannot take. */
export function invalidQuery(parameter: string, detail: string): ApiProblem {
  return new ApiProblem('invalid_request', `${parameter} ${detail}`, [{ pointer: `#/query/${parameter}`, detail }])
}

const RETRY_AFTER_S: Partial<Record<ProblemCode, number>> = { database_unavailable: 5, busy: 1, rehydrating: 1 }
const RETRY_AFTER_S_BY_DEFAULT = 5

interface Answer {
  readonly code: ProblemCode
  readonly status: number
  readonly detail: string
  readonly parts: readonly InvalidPart[]
}

export function addProblems(server: Server): void {
  server.setErrorHandler<FastifyError | SurgetankError | ApiProblem>((error, request, reply) => {
    const answer = answerTo(error)
    // A client that is gone ended its query itself.
    const failed = answer.status >= 500 && answer.status !== 503 && !request.socket.destroyed
    if (failed) request.log.error({ err: error, url: request.url }, 'a request failed')
    return sendProblem(request, reply, answer)
  })
  server.setNotFoundHandler((request, reply) => sendProblem(request, reply, answerTo(new ApiProblem('not_found', ''))))
}

/** What cannot even be routed, such as `/%zz`: no hook ran before it. */
export function answerBadUrl(_error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  reply.headers(SECURITY_HEADERS)
  sendProblem(request, reply, answerTo(new ApiProblem('invalid_request', 'The path is not a valid one.')))
}

function answerTo(error: FastifyError | SurgetankError | ApiProblem): Answer {
  if (error instanceof ApiProblem) {
    return { code: error.code, status: statusOf(error.code), detail: error.detail, parts: error.parts }
  }
  if (error instanceof SurgetankError) {
    const callers = error.code === 'invalid_request' || error.code === 'unknown_device'
    const code = callers || error.fate === 'retry' ? error.code : 'internal'
    return { code, status: statusOf(code), detail: '', parts: [] }
  }
  if (error.validation !== undefined) {
    const parts = error.validation.map(({ instancePath, params, message }) => {
      const where = error.validationContext === 'params' ? 'path' : 'query'
      const unknown = typeof params.additionalProperty === 'string' ? `/${params.additionalProperty}` : ''
      return {
        pointer: `#/${where}${instancePath}${unknown}`,
        detail: unknown === '' ? (message ?? '') : 'is no parameter here',
      }
    })
    const detail = parts.map(part => `${part.pointer} ${part.detail}`).join('; ')
    return { code: 'invalid_request', status: 400, detail, parts }
  }
  // Of HTTP itself: a body too large, a media type that nobody reads.
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) return { code: 'invalid_request', status, detail: '', parts: [] }
  return { code: 'internal', status: 500, detail: '', parts: [] }
}

function statusOf(code: ProblemCode): number {
  if (Object.hasOwn(HTTP_PROBLEMS, code)) return HTTP_PROBLEMS[code as keyof typeof HTTP_PROBLEMS].status
  if (code === 'unknown_device') return 404
  if (code === 'invalid_request') return 400
  return ERRORS[code as ErrorCode].fate === 'retry' ? 503 : 500
}

function titleOf(code: ProblemCode): string {
  if (Object.hasOwn(HTTP_PROBLEMS, code)) return HTTP_PROBLEMS[code as keyof typeof HTTP_PROBLEMS].title
  return ERRORS[code as ErrorCode].sentence
}

function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  { code, status, detail, parts }: Answer,
): FastifyReply {
  if (status === 503) reply.header('retry-after', String(RETRY_AFTER_S[code] ?? RETRY_AFTER_S_BY_DEFAULT))
  const problem = {
    type: `urn:surgetank:problem:${code}`,
    title: titleOf(code),
    status,
    ...(detail === '' ? {} : { detail }),
    instance: request.url.split('?', 1)[0],
    code,
    ...(parts.length === 0 ? {} : { errors: parts }),
  }
  return reply.code(status).type('application/problem+json').send(JSON.stringify(problem))
}
