// Nodes: objects with a global id, and reading an object by its id. The first letters of an id name
// its type. A room registers its prefix once, with a reader that also checks what the caller may
// see, and `node(id:)` finds it.
import type { Actor } from '../actor.ts';
import { Refusal, type RefusalDetails } from '../errors.ts';
import { requireActor } from '../actor.ts';
import { builder, type Context, load, type LoadMany } from './builder.ts';

/** Reads an object; null when there is none or the actor may not see it. */
type ReadNode = (context: Context, actor: Actor, id: string) => Promise<{ id: string } | null>;

const types = new Map<string, { typeName: string; read: ReadNode }>();
const maxIds = 100;

/**
 * Makes a type refetchable by `node(id:)`: ids that start with `<prefix>_` (of projects `p-`)
 * belong to it.
 */
export function registerNode(prefix: string, typeName: string, read: ReadNode): void {
  types.set(prefix, { typeName, read });
}

function typeOf(id: string) {
  return types.get(/^[a-z]+(?=[_-])/.exec(id)?.[0] ?? '');
}

export const NodeInterface = builder.interfaceRef<{ id: string }>('Node').implement({
  description: 'An object with a globally unique id, refetchable with `Query.node`.',
  resolveType: (value) => typeOf(value.id)?.typeName,
  fields: (t) => ({
    id: t.exposeID('id', {
      description: "Globally unique id. Treat it as opaque; it is stable for the object's lifetime.",
    }),
  }),
});

export const ActorInterface = builder.interfaceRef<{ id: string; name: string }>('Actor').implement({
  description: 'Someone or something that acts.',
  resolveType: (value) => typeOf(value.id)?.typeName,
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id.' }),
    name: t.exposeString('name', { description: 'Name for people.' }),
  }),
});

const actors = new Map<string, LoadMany<string, { id: string; name: string }>>();

/**
 * Registers objects with this prefix as actors. A caller who may see an action may also see its
 * actor.
 */
export function registerActor(prefix: string, loadMany: LoadMany<string, { id: string; name: string }>): void {
  actors.set(prefix, loadMany);
}

/** Loads the actor with this id; null for the system, and for an actor that was deleted. */
export async function loadActor(context: Context, id: string | null): Promise<{ id: string; name: string } | null> {
  const loadMany = actors.get(id?.split('_', 1)[0] ?? '');
  return id !== null && loadMany ? load(context, loadMany, id) : null;
}

builder.queryFields((t) => ({
  node: t.field({
    type: NodeInterface,
    nullable: true,
    description: 'Object with this id; null when it does not exist or the caller may not see it.',
    args: { id: t.arg.id({ required: true, description: 'Global id.' }) },
    resolve: (_, { id }, context) => readNode(context, id),
  }),
  nodes: t.field({
    type: [NodeInterface],
    nullable: { list: false, items: true },
    description: 'Objects with these ids, in the same order.',
    args: { ids: t.arg.idList({ required: true, description: 'Global ids, at most 100.' }) },
    resolve(_, { ids }, context) {
      if (ids.length > maxIds) throw badInput(`ids has ${ids.length} entries; ${maxIds} are the most.`, ['ids']);
      return Promise.all(ids.map((id) => readNode(context, id)));
    },
  }),
}));

async function readNode(context: Context, id: string): Promise<{ id: string } | null> {
  const actor = requireActor(context.actor);
  if (id.length > 500 || id.includes('\0')) return null; // no id is that long or holds NUL
  return (await typeOf(id)?.read(context, actor, id)) ?? null;
}

/** Makes the refusal of an argument of a query or subscription. */
export function badInput(message: string, path?: string[], details: RefusalDetails = {}): Refusal {
  return new Refusal('BAD_USER_INPUT', message, { ...details, path });
}
