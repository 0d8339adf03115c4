// Control: HTTP requests of a runner to the gateway. Answers are checked against a schema; a
// request without an answer rejects with ApiError.
import { z } from 'zod';
import { ApiError } from '../client/client.ts';

/** Time after which a gateway without an answer counts as away. */
export const answerMs = 10_000;

export type Control = {
  readonly url: string;
  /**
   * Posts to `/runner/v1/<path>`. Rejects with ApiError, which is retryable when the gateway is
   * away.
   */
  call<Schema extends z.ZodType>(
    path: string,
    body: unknown,
    answer: Schema,
    options?: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<z.output<Schema>>;
};

const refusal = z.object({
  errors: z.array(
    z.object({
      message: z.string(),
      extensions: z.object({ code: z.string().optional(), retryable: z.boolean().optional() }).optional(),
    }),
  ),
});

/** `token` must have the scope RUNNER. */
export function createControl(url: string, token: string): Control {
  return {
    url,
    async call(path, body, answer, { timeoutMs = answerMs, signal } = {}) {
      let response: Response;
      let json: unknown;
      try {
        response = await fetch(`${url}/runner/v1/${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
          body: JSON.stringify(body),
          signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])]),
        });
        json = await response.json();
      } catch (cause) {
        throw new ApiError(`The gateway at ${url} cannot be reached.`, { code: 'UNREACHABLE', retryable: true, cause });
      }
      if (response.ok) return answer.parse(json);
      const error = refusal.safeParse(json).data?.errors[0];
      const { code = 'INTERNAL', retryable = response.status >= 500 } = error?.extensions ?? {};
      throw new ApiError(error?.message ?? `HTTP ${response.status}`, { code, retryable, httpStatus: response.status });
    },
  };
}
