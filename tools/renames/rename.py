# ruff: noqa
# fmt: off
"""Rename what ``table.tsv`` names, in source, tests, docs, benchmarks and examples: ``rename.py --check`` or ``--apply``.

For one use: it and the table go once the names are changed. Rows of kind ``module`` are moved by ``apply.sh``.
"""
import ast, csv, re, sys, argparse, builtins, keyword, collections
from pathlib import Path
ap=argparse.ArgumentParser(); ap.add_argument("--check",action="store_true"); ap.add_argument("--apply",action="store_true")
ap.add_argument("--root",default="."); ap.add_argument("--skip-bad",action="store_true"); ap.add_argument("tables",nargs="+"); A=ap.parse_args()
ROOT=Path(A.root).resolve()
class Row:
    def __init__(s,d,t,n): s.kind=(d["kind"] or "").strip(); s.file=(d["file"] or "").strip(); s.scope=(d["scope"] or "").strip().replace(".<locals>",""); s.old=(d["old"] or "").strip(); s.new=(d["new"] or "").strip(); s.at=f"{Path(t).name}:{n}"
    def __repr__(s): return f"{s.at} {s.kind} {s.file} {s.scope} {s.old} -> {s.new}"
rows=[]
for t in A.tables:
    with open(t,newline="") as f:
        for n,d in enumerate(csv.DictReader(f,delimiter="\t",quoting=csv.QUOTE_NONE),2):
            r=Row(d,t,n)
            if r.kind and not r.kind.startswith("#"): rows.append(r)
problems=[]
bad=set()
def complain(r,why):
    problems.append(f"{r}: {why}"); bad.add(r)
# ---------- files
TOP=["src","tests","docs","benchmarks","examples","tools"]
pys=[p for t in TOP if (ROOT/t).exists() for p in (ROOT/t).rglob("*.py") if "node_modules" not in p.parts]
def modname(p):
    r=p.relative_to(ROOT)
    parts=list(r.with_suffix("").parts)
    if parts[0] in("src","tests","benchmarks"): parts=parts[1:]
    if parts and parts[-1]=="__init__": parts=parts[:-1]
    return ".".join(parts)
class Mod: pass
mods={}; files={}
for p in pys:
    m=Mod(); m.path=p; m.rel=str(p.relative_to(ROOT)); m.text=p.read_text(encoding="utf-8")
    try: m.tree=ast.parse(m.text)
    except SyntaxError: continue
    m.name=modname(p); m.is_pkg=p.name=="__init__.py"; mods.setdefault(m.name,m); files[m.rel]=m
# ---------- scopes
class Scope:
    def __init__(s,kind,node,parent,qual,mod): s.kind=kind; s.node=node; s.parent=parent; s.b={}; s.qual=qual; s.mod=mod; s.glob=set()
FN=(ast.FunctionDef,ast.AsyncFunctionDef)
def targets(node):
    for n in ast.walk(node):
        if isinstance(n,ast.Name) and isinstance(n.ctx,(ast.Store,ast.Del)): yield n.id
def imported(m,node):
    """module of an ImportFrom"""
    if not node.level: return node.module or ""
    base=m.name.split(".");  base=base if m.is_pkg else base[:-1]
    base=base[:len(base)-(node.level-1)]
    return ".".join(base+([node.module] if node.module else []))
def bind(s,name,what):
    if name in s.glob: return
    old=s.b.get(name)
    if old and old[0]=="def" : return
    s.b[name]=what
class Builder(ast.NodeVisitor):
    def __init__(b,m): b.m=m; b.s=Scope("module",m.tree,None,"",m); m.scope=b.s; m.scopes={}; b.stack=[b.s]; m.use=[]
    @property
    def cur(b): return b.stack[-1]
    def enter(b,kind,node,name):
        q=b.cur.qual+("." if b.cur.qual else "")+name if name else b.cur.qual
        s=Scope(kind,node,b.cur,q,b.m); b.stack.append(s); return s
    def visit_Import(b,n):
        for a in n.names:
            if a.asname: bind(b.cur,a.asname,("mod",a.name))
            else: bind(b.cur,a.name.split(".")[0],("mod",a.name.split(".")[0]))
    def visit_ImportFrom(b,n):
        src=imported(b.m,n)
        for a in n.names:
            bind(b.cur,a.asname or a.name,("from",src,a.name))
            b.m.use.append(("alias",a,src,b.cur))
    def visit_Global(b,n): b.cur.glob|=set(n.names)
    visit_Nonlocal=visit_Global
    def fn(b,n):
        bind(b.cur,n.name,("def",b.m.name,n.name) if b.cur.kind=="module" else ("local",))
        b.m.use.append(("def",n,b.cur))
        for d in n.decorator_list: b.visit(d)
        a=n.args
        for d in [*a.defaults,*[x for x in a.kw_defaults if x]]: b.visit(d)
        s=b.enter("function",n,n.name); b.m.scopes.setdefault(s.qual,[]).append(s)
        for x in [*a.posonlyargs,*a.args,*a.kwonlyargs,*( [a.vararg] if a.vararg else []),*([a.kwarg] if a.kwarg else [])]:
            s.b[x.arg]=("arg",); b.m.use.append(("arg",x,s))
            if x.annotation:
                b.stack.pop(); b.visit(x.annotation); b.stack.append(s)
        if n.returns: b.stack.pop(); b.visit(n.returns); b.stack.append(s)
        for x in n.body: b.visit(x)
        b.stack.pop()
    visit_FunctionDef=fn; visit_AsyncFunctionDef=fn
    def visit_Lambda(b,n):
        a=n.args
        for d in [*a.defaults,*[x for x in a.kw_defaults if x]]: b.visit(d)
        s=b.enter("function",n,None)
        for x in [*a.posonlyargs,*a.args,*a.kwonlyargs,*( [a.vararg] if a.vararg else []),*([a.kwarg] if a.kwarg else [])]:
            s.b[x.arg]=("arg",); 
        b.visit(n.body); b.stack.pop()
    def visit_ClassDef(b,n):
        bind(b.cur,n.name,("def",b.m.name,n.name) if b.cur.kind=="module" else ("local",))
        b.m.use.append(("def",n,b.cur))
        for d in [*n.decorator_list,*n.bases]: b.visit(d)
        for k in n.keywords: b.visit(k.value)
        s=b.enter("class",n,n.name)
        for x in n.body: b.visit(x)
        b.stack.pop()
    def comp(b,n):
        b.visit(n.generators[0].iter)
        s=b.enter("comp",n,None)
        for i,g in enumerate(n.generators):
            b.visit(g.target)
            if i: b.visit(g.iter)
            for c in g.ifs: b.visit(c)
        for f in ("elt","key","value"):
            if hasattr(n,f): b.visit(getattr(n,f))
        b.stack.pop()
    visit_ListComp=visit_SetComp=visit_DictComp=visit_GeneratorExp=comp
    def visit_NamedExpr(b,n):
        s=b.cur
        i=len(b.stack)-1
        while b.stack[i].kind=="comp": i-=1
        bind(b.stack[i],n.target.id,("local",) if b.stack[i].kind!="module" else ("def",b.m.name,n.target.id))
        b.m.use.append(("name",n.target,b.cur)); b.visit(n.value)
    def visit_Name(b,n):
        if isinstance(n.ctx,(ast.Store,ast.Del)): bind(b.cur,n.id,("def",b.m.name,n.id) if b.cur.kind=="module" else ("local",))
        b.m.use.append(("name",n,b.cur))
    def visit_ExceptHandler(b,n):
        if n.name: bind(b.cur,n.name,("local",) if b.cur.kind!="module" else ("def",b.m.name,n.name))
        b.generic_visit(n)
    def visit_MatchAs(b,n):
        if n.name: bind(b.cur,n.name,("local",))
        b.generic_visit(n)
    def visit_Attribute(b,n):
        b.m.use.append(("attr",n,b.cur)); b.generic_visit(n)
    def visit_Call(b,n):
        b.m.use.append(("call",n,b.cur)); b.generic_visit(n)
    def visit_Constant(b,n):
        if isinstance(n.value,str): b.m.use.append(("str",n,b.cur))
    def visit_AnnAssign(b,n):
        b.generic_visit(n)
for m in files.values(): Builder(m).visit(m.tree)
def lookup(s,name):
    first=True
    while s:
        if (s.kind!="class" or first) and name in s.b and name not in s.glob: return s,s.b[name]
        first=False if s.kind!="comp" else first
        s=s.parent
    return None,None
def canonical(module,name,depth=0):
    """(module,name) where a name is defined, ("module",dotted) if it's a module."""
    if depth>12: return None
    full=f"{module}.{name}"
    m=mods.get(module)
    if m is None: return None
    w=m.scope.b.get(name)
    if w is None:
        if full in mods: return ("module",full)
        # lazy exports: a renamed def of that name below the package
        cand={(r_mod,n) for (r_mod,n) in DEFS.get(name,()) if r_mod.startswith(module+".")}
        return next(iter(cand)) if len(cand)==1 else (("lazy",)+tuple(sorted(cand)) if cand else None)
    if w[0]=="def": return (module,name)
    if w[0]=="from": return canonical(w[1],w[2],depth+1) if w[1].split(".")[0] in OWN else ("ext",w[1])
    if w[0]=="mod": return ("module",w[1])
    return None
OWN={m.split(".")[0] for m in mods}
DEFS=collections.defaultdict(set)
for m in files.values():
    for k,w in m.scope.b.items():
        if w[0]=="def": DEFS[k].add((m.name,k))
def resolve(node,s):
    """of an expression: ("module",x), (module,name), ("ext",..), ("var",scope,name) or None"""
    if isinstance(node,ast.Name):
        sc,w=lookup(s,node.id)
        if w is None: return None
        if w[0]=="def": return (w[1],w[2])
        if w[0]=="from":
            if w[1].split(".")[0] not in OWN: return ("ext",w[1])
            return canonical(w[1],w[2])
        if w[0]=="mod": return ("module",w[1]) if w[1].split(".")[0] in OWN else ("ext",w[1])
        return ("var",sc,node.id)
    if isinstance(node,ast.Attribute):
        b=resolve(node.value,s)
        if b and b[0]=="module": return canonical(b[1],node.attr)
        if b and b[0]=="ext": return ("ext",b[1])
    return None
# ---------- index rows
names={}; members=collections.defaultdict(dict); args={}; locs={}; moves=[]
BUILT=set(dir(builtins))
import torch, numpy as np
COMMON=set(dir(dict))|set(dir(list))|set(dir(str))|set(dir(set))|set(dir(tuple))|set(dir(Path))|set(dir(torch.Tensor))|set(dir(torch.nn.Module))|set(dir(np.ndarray))|set(dir(ast.AST))
try:
    import pandas as pd; COMMON|=set(dir(pd.DataFrame))
    import argparse as _a; COMMON|=set(dir(_a.ArgumentParser))
except ImportError: pass
classes=collections.defaultdict(list)  # class name -> [(mod,node)]
for m in files.values():
    for n in ast.walk(m.tree):
        if isinstance(n,ast.ClassDef): classes[n.name].append((m,n))
def base_names(n): return [b.attr if isinstance(b,ast.Attribute) else b.id if isinstance(b,ast.Name) else b.value.id if isinstance(b,ast.Subscript) and isinstance(b.value,ast.Name) else "" for b in n.bases]
up=collections.defaultdict(set); down=collections.defaultdict(set)
for c,l in classes.items():
    for m,n in l:
        for b in base_names(n):
            if b in classes: up[c].add(b); down[b].add(c)
def family(c):
    seen={c}; todo=[c]
    for rel in (up,down):
        todo=[c]
        while todo:
            for x in rel[todo.pop()]:
                if x not in seen: seen.add(x); todo.append(x)
    return seen
def member_defs(n):
    out=set()
    for x in n.body:
        if isinstance(x,FN): out.add(x.name)
        elif isinstance(x,ast.AnnAssign) and isinstance(x.target,ast.Name): out.add(x.target.id)
        elif isinstance(x,ast.Assign): out|={t.id for t in x.mix_targets if isinstance(t,ast.Name)}
    for x in ast.walk(n):
        if isinstance(x,ast.Attribute) and isinstance(x.ctx,ast.Store) and isinstance(x.value,ast.Name) and x.value.id in("self","cls"): out.add(x.attr)
    return out
definers=collections.defaultdict(set)
for c,l in classes.items():
    for m,n in l:
        if m.rel.startswith("src/"):
            for x in member_defs(n): definers[x].add(c)
for r in rows:
    if r.old==r.new or not r.new.isidentifier() and r.kind!="module": complain(r,"new is the same or no identifier"); continue
    if keyword.iskeyword(r.new): complain(r,"new is a keyword"); continue
    if r.kind!="module" and r.file not in files: complain(r,"no such file"); continue
    m=files.get(r.file)
    if r.kind=="name":
        if m.scope.b.get(r.old,("",))[0]!="def": complain(r,f"{r.old} is not defined at module level of {r.file}"); continue
        if r.new in BUILT: complain(r,"new shadows a builtin"); continue
        if r.new in m.scope.b and not any(q.kind=="name" and q.file==r.file and q.old==r.new for q in rows): complain(r,f"{r.new} is already bound in {r.file}"); continue
        pkg=m.name.rsplit(".",1)[0]
        if f"{pkg}.{r.new}" in mods and not m.is_pkg and False: complain(r,"a module of the package has this name"); continue
        if (m.name,r.old) in names: complain(r,"twice in the table"); continue
        names[m.name,r.old]=r
    elif r.kind=="member":
        l=[(mm,n) for mm,n in classes.get(r.scope.split(".")[-1],[]) if mm.rel==r.file]
        if not l: complain(r,f"no class {r.scope} in {r.file}"); continue
        d=member_defs(l[0][1])
        if r.old not in d: complain(r,f"{r.scope} does not define {r.old} itself"); continue
        if r.new in d: complain(r,f"{r.scope} has a {r.new} already"); continue
        members[r.old][r.scope.split(".")[-1]]=r
    elif r.kind in("arg","local"):
        sc=m.scopes.get(r.scope)
        if not sc: complain(r,f"no function {r.scope} in {r.file}"); continue
        want="arg" if r.kind=="arg" else "local"
        hit=[s for s in sc if r.old in s.b and s.b[r.old][0]==want or (want=="local" and s.b.get(r.old,("",))[0] in("local",))]
        if not hit:
            # locals in comprehensions of the function
            complain(r,f"{r.old} is no {r.kind} of {r.scope}"); continue
        if any(r.new in s.b for s in hit): complain(r,f"{r.new} is already bound in {r.scope}"); continue
        for s in hit: (args if r.kind=="arg" else locs)[id(s),r.old]=r
        if r.kind=="arg": args[m.name,r.scope,r.old]=r
    elif r.kind=="module":
        if not (ROOT/r.file).exists(): complain(r,"no such file")
        elif (ROOT/r.new).exists(): complain(r,"new exists")
        else: moves.append(r)
    else: complain(r,"unknown kind")
for old,by in members.items():
    news={r.new for r in by.values()}
    if len(news)>1:
        fam=[family(c) for c in by]
        pass
    fams=set().union(*(family(c) for c in by))
    others={c for c in definers[old]-set(by) if c not in fams}
    over={c for c in definers[old]-set(by) if c in fams}
    r=next(iter(by.values()))
    if over: complain(r,f"overrides of the family without a row: {sorted(over)}")
    if others or len(news)>1:
        for r in by.values(): r.ambiguous=True
        problems.append(f"note {r}: also a member of {sorted(others)}{' with other new names' if len(news)>1 else ''}: only self.{old}, and .{old} in files of the same folder and their tests follow (others only by hand)")
    if old in COMMON:
        for r in by.values(): r.ambiguous=True
        problems.append(f"note {r}: {old} is an attribute of common library objects: only self.{old} follows")
# ---------- edits
edits=collections.defaultdict(set)
def name_pos(m,node):
    """position of the name token of a def/class"""
    line=m.lines[node.lineno-1]
    k=re.compile(rb"(?:async\s+)?(?:def|class)\s+").match(line,node.col_offset)
    return node.lineno,k.end()
def edit(m,line,col,old,new,r):
    seg=m.lines[line-1][col:col+len(old.encode())]
    if seg!=old.encode(): return
    edits[m.rel].add((line,col,old,new)); r.count=getattr(r,"count",0)+1
for m in files.values(): m.lines=[l.encode() for l in m.text.split("\n")]
def shadow(m,s,new,r,node):
    """new is bound between the use and module level"""
    x=s
    while x and x.kind!="module":
        if new in x.b and x.kind!="class": 
            complain(r,f"use at {m.rel}:{node.lineno} where {new} is a local name of {x.qual or 'a lambda'}"); return
        x=x.parent
def class_of(s):
    while s:
        if s.kind=="class": return s.node.name
        s=s.parent
def last(node): return node.attr if isinstance(node,ast.Attribute) else node.id if isinstance(node,ast.Name) else ""
func_args=collections.defaultdict(list)
for k,r in args.items():
    if len(k)==3: func_args[r.scope.split(".")[-1] if not r.scope.endswith("__init__") else r.scope.split(".")[-2]].append(r)
for m in files.values():
    for u in m.use:
        kind,n,s=u[0],u[1],u[-1]
        if kind=="name":
            sc,w=lookup(s,n.id)
            if w is None: continue
            if w[0] in("arg","local"):
                r=args.get((id(sc),n.id)) or locs.get((id(sc),n.id))
                if r:
                    edit(m,n.lineno,n.col_offset,n.id,r.new,r)
                    x=s
                    while x is not sc:
                        if r.new in x.b: complain(r,f"{r.new} is bound in an inner scope at {m.rel}:{n.lineno}"); break
                        x=x.parent
                if sc.kind=="class" and n.id in members and sc.node.name in members[n.id]:
                    r=members[n.id][sc.node.name]; edit(m,n.lineno,n.col_offset,n.id,r.new,r)
                continue
            c=resolve(n,s)
            r=names.get(c) if c else None
            if r and not (w[0]=="from" and w[2]!=n.id and w[2]!=r.old):
                if w[0]=="from" and w[2]!=n.id: continue   # imported under another name
                edit(m,n.lineno,n.col_offset,n.id,r.new,r); shadow(m,s,r.new,r,n)
        elif kind=="alias":
            src=u[2]
            c=canonical(src,n.name) if src.split(".")[0] in OWN else None
            r=names.get(c) if c else None
            if r and n.name==r.old:
                edit(m,n.lineno,n.col_offset,n.name,r.new,r)
                if not n.asname and r.new in s.b and not (s.b[r.new][0]=="from" and (canonical(s.b[r.new][1],s.b[r.new][2]) in names)): complain(r,f"{r.new} is already bound in {m.rel}")
        elif kind=="def":
            l,c=name_pos(m,n)
            if s.kind=="module":
                r=names.get((m.name,n.name))
                if r: edit(m,l,c,n.name,r.new,r)
            elif s.kind=="class" and n.name in members and s.node.name in members[n.name]:
                r=members[n.name][s.node.name]; edit(m,l,c,n.name,r.new,r)
            elif s.kind=="function":
                r=locs.get((id(s),n.name))
                if r: edit(m,l,c,n.name,r.new,r)
        elif kind=="arg":
            r=args.get((id(s),n.arg))
            if r: edit(m,n.lineno,n.col_offset,n.arg,r.new,r)
        elif kind=="attr":
            end=n.end_col_offset-len(n.attr.encode())
            b=resolve(n.value,s)
            if b and b[0]=="module":
                c=canonical(b[1],n.attr); r=names.get(c) if c else None
                if r and n.attr==r.old: edit(m,n.end_lineno,end,n.attr,r.new,r)
                continue
            if b and b[0]=="ext": continue
            if n.attr in members:
                by=members[n.attr]; r=None
                me=isinstance(n.value,ast.Name) and n.value.id in("self","cls") or isinstance(n.value,ast.Call) and last(n.value.func)=="super"
                if me:
                    c=class_of(s)
                    hit=[by[x] for x in by if c and x in family(c)|{c}]
                    if hit: r=hit[0]
                elif isinstance(n.value,ast.Name) and n.value.id in classes:
                    hit=[by[x] for x in by if x in family(n.value.id)|{n.value.id}]
                    if hit: r=hit[0]
                elif not any(getattr(x,"ambiguous",False) for x in by.values()): r=next(iter(by.values()))
                elif n.attr not in COMMON:
                    room=Path(m.rel).parent
                    hit=[x for x in by.values() if Path(x.file).parent==room or m.rel.startswith("tests/unit/"+"/".join(Path(x.file).parent.parts[2:]))]
                    if len({x.new for x in hit})==1: r=hit[0]
                if r: edit(m,n.end_lineno,end,n.attr,r.new,r)
        elif kind=="call":
            f=last(n.func)
            c=resolve(n.func,s)
            for k in n.keywords:
                if not k.arg: continue
                r=None
                for q in func_args.get(f,[]):
                    if q.old!=k.arg: continue
                    fm=files[q.file].name
                    if "." in q.scope and not q.scope.endswith("__init__"):
                        # a method: by its class where that can be seen
                        if isinstance(n.func,ast.Attribute) and not (c and c[0] in("ext",)):
                            cls=q.scope.split(".")[-2]
                            same=[d for d in definers[f]]
                            me=isinstance(n.func.value,ast.Name) and n.func.value.id in("self","cls")
                            if me and class_of(s) and cls not in family(class_of(s)): continue
                            r=q
                    elif c==(fm,q.scope.split(".")[0]): r=q
                if r is None and k.arg in members:
                    by=members[k.arg]
                    cn=f if f in classes else class_of(s) if f=="cls" or f=="type" else None
                    if f=="__init__" : cn=class_of(s)
                    if cn:
                        hit=[by[x] for x in by if x in family(cn)|{cn}]
                        if hit: r=hit[0]
                    elif f in("replace","_replace") and not any(getattr(x,"ambiguous",False) for x in by.values()): r=next(iter(by.values()))
                if r: edit(m,k.lineno,k.col_offset,k.arg,r.new,r)
        elif kind=="str": pass
# members defined as class-level names
for old,by in members.items():
    for c,r in by.items():
        for m,n in classes[c]:
            if m.rel!=r.file: continue
            for x in n.body:
                if isinstance(x,ast.AnnAssign) and isinstance(x.target,ast.Name) and x.target.id==old: edit(m,x.target.lineno,x.target.col_offset,old,r.new,r)
                elif isinstance(x,ast.Assign):
                    for t in x.mix_targets:
                        if isinstance(t,ast.Name) and t.id==old: edit(m,t.lineno,t.col_offset,old,r.new,r)
# strings
allnames={r.old:r for r in names.values()}
bycanon=names
STR=re.compile(r"\A(?:fedlas|tests)?[\w.]*[.:](\w+)\Z")
for m in files.values():
    inall=set()
    for x in m.tree.body:
        if isinstance(x,(ast.Assign,ast.AnnAssign,ast.AugAssign)):
            t=x.mix_targets[0] if isinstance(x,ast.Assign) else x.target
            if isinstance(t,ast.Name) and (t.id=="__all__" or m.is_pkg or t.id.startswith("_LAZY")) and x.value is not None:
                inall|={id(c) for c in ast.walk(x.value)}
    setat=set()
    for u in m.use:
        if u[0]=="call" and last(u[1].func) in("setattr","getattr","hasattr","delattr","attrgetter","object","patch","methodcaller"):
            n=u[1]
            for a in n.args:
                if isinstance(a,ast.Constant) and isinstance(a.value,str):
                    target=n.args[0] if len(n.args)>1 and a is not n.args[0] else None
                    setat.add((id(a),)); 
                    b=resolve(target,u[-1]) if target is not None else None
                    v=a.value; r=None
                    if b and b[0]=="module":
                        c=canonical(b[1],v); r=names.get(c) if c else None
                    elif b and b[0]=="ext": continue
                    elif re.fullmatch(r"\w+(\.\w+)+",v):
                        head,tail=v.rsplit(".",1)
                        if head in mods:
                            c=canonical(head,tail); r=names.get(c) if c else None
                    elif v in members and not any(getattr(x,"ambiguous",False) for x in members[v].values()): r=next(iter(members[v].values()))
                    elif v in members and target is not None and isinstance(target,ast.Name) and target.id in members[v]: r=members[v][target.id]
                    if r:
                        raw=m.lines[a.lineno-1][a.col_offset:a.end_col_offset].decode()
                        k=raw.rfind(r.old)
                        if k>=0 and a.lineno==a.end_lineno: edit(m,a.lineno,a.col_offset+len(raw[:k].encode()),r.old,r.new,r)
    for u in m.use:
        if u[0]!="str": continue
        n=u[1]; v=n.value
        if n.lineno!=n.end_lineno: continue
        raw=m.lines[n.lineno-1][n.col_offset:n.end_col_offset].decode()
        r=None
        if id(n) in inall and v in allnames:
            c=canonical(m.name,v); r=names.get(c) if c else None
            if r is None and m.is_pkg:
                cand=[q for (mm,nn),q in names.items() if nn==v and (mm.startswith(m.name+"."))]
                if len(cand)==1: r=cand[0]
        else:
            k=re.fullmatch(r"(fedlas[\w.]*)[.:](\w+)",v)
            if k and k[1] in mods:
                c=canonical(k[1],k[2]); r=names.get(c) if c else None
        if r:
            k=raw.rfind(r.old)
            if k>=0: edit(m,n.lineno,n.col_offset+len(raw[:k].encode()),r.old,r.new,r)
for r in rows:
    if r not in bad and r.kind!="module" and not getattr(r,"count",0): complain(r,"nothing found to rename")
# ---------- docs text: backquotes, doctests, markdown code
word_names={r.old:r for r in names.values()}
dup={o for o in word_names if len({q.new for q in names.values() if q.old==o})>1}
def sub_code(code,rel,strict):
    """names and members in a piece of code text"""
    def one(k):
        w=k[0]
        before=code[:k.start()]; after=code[k.end():]
        if w in members and before.endswith(".") and "_" in w.strip("_"):
            by=members[w]
            if not any(getattr(x,"ambiguous",False) for x in by.values()): return next(iter(by.values())).new
            same=[x for x in by.values() if Path(x.file).parent==Path(rel).parent]
            return same[0].new if same else w
        if w in word_names and w not in dup:
            r=word_names[w]
            if r in bad: return w
            distinctive="_" in w.strip("_") or sum(c.isupper() for c in w)>1
            others=len(DEFS.get(w,()))>1
            if strict and others and r.file!=rel: return w
            if distinctive or r.file==rel: return r.new
        if w in members and (not before or before.endswith("`")) and any(x.file==rel for x in members[w].values()):
            return next(x.new for x in members[w].values() if x.file==rel)
        return w
    return re.sub(r"\b[A-Za-z_]\w*\b",one,code)
def sub_text(text,rel):
    """backquoted spans, role targets, doctest lines"""
    text=re.sub(r"(`+)([^`\n]+)(\1)",lambda k:k[1]+sub_code(k[2],rel,True)+k[3],text)
    out=[]
    for l in text.split("\n"):
        if re.match(r"\s*(>>>|\.\.\.)( |$)",l): l=sub_code(l,rel,True)
        out.append(l)
    return "\n".join(out)
def apply_args_in_doc(doc,rs):
    for r in rs:
        doc=re.sub(rf"^(\s+){r.old}(:| \()",rf"\g<1>{r.new}\2",doc,flags=re.M)
        doc=re.sub(rf"(`+){r.old}(`+)",rf"\g<1>{r.new}\2",doc)
    return doc
def main():
    for p in problems: print(p)
    good=[r for r in rows if r not in bad]
    print(len(rows),"rows,",len(bad),"bad,",sum(len(x) for x in edits.values()),"edits in",len(edits),"files")
    if not A.apply: return 1 if bad else 0
    if bad and not A.skip_bad: return 1
    badpairs={(r.old,r.new) for r in bad}-{(r.old,r.new) for r in good}
    # docs of functions whose args are renamed
    docargs=collections.defaultdict(list)
    for k,r in args.items():
        if len(k)==3 and r not in bad: docargs[r.file].append(r)
    for m in files.values():
        lines=list(m.lines)
        todo=collections.defaultdict(list)
        for (l,c,o,n) in edits.get(m.rel,()):
            if (o,n) in badpairs: continue
            todo[l].append((c,o,n))
        for l,e in todo.items():
            b=lines[l-1]
            for c,o,n in sorted(e,reverse=True): b=b[:c]+n.encode()+b[c+len(o.encode()):]
            lines[l-1]=b
        text=b"\n".join(lines).decode()
        # docstrings and comments
        try: tree=ast.parse(text)
        except SyntaxError as e: print("SYNTAX",m.rel,e); continue
        segs=[]
        srcl=text.split("\n")
        for n in ast.walk(tree):
            if isinstance(n,(ast.Module,ast.ClassDef,*FN)) and n.body and isinstance(n.body[0],ast.Expr) and isinstance(n.body[0].value,ast.Constant) and isinstance(n.body[0].value.value,str):
                segs.append((n.body[0].lineno,n.body[0].end_lineno,n))
            for ch in ast.iter_child_nodes(n):
                if isinstance(n,(ast.Module,ast.ClassDef)) and isinstance(ch,ast.Expr) and isinstance(ch.value,ast.Constant) and isinstance(ch.value.value,str) and ch is not n.body[0]:
                    segs.append((ch.lineno,ch.end_lineno,None))
        for a,b,n in segs:
            t="\n".join(srcl[a-1:b]); t2=sub_text(t,m.rel)
            if n is not None and not isinstance(n,ast.Module):
                nm=n.name
                rs=[r for r in docargs.get(m.rel,()) if nm in (r.scope.split(".")[-1],) or r.scope.split(".")[-1]==next((q.old for q in rows if q.new==nm and q.file==m.rel),None) or (r.scope.endswith("__init__") and nm in(r.scope.split(".")[-2],))]
                if isinstance(n,ast.ClassDef):
                    rs=rs+[r for old,by in members.items() for c,r in by.items() if r.file==m.rel and r not in bad and (c==nm or next((q.new for q in rows if q.old==c and q.file==m.rel and q.kind=="name"),None)==nm)]
                t2=apply_args_in_doc(t2,rs)
            if t2!=t: srcl[a-1:b]=t2.split("\n")
        for i,l in enumerate(srcl):
            k=l.find("# ")
            if k>=0 and "`" in l[k:]: srcl[i]=l[:k]+sub_text(l[k:],m.rel)
        text2="\n".join(srcl)
        if text2!=m.text: m.path.write_text(text2,encoding="utf-8")
    # markdown, templates
    for p in [*ROOT.glob("*.md"),*(ROOT/"docs").rglob("*.md"),*(ROOT/"results").rglob("*.md"),*(ROOT/"tests").rglob("*.md"),*(ROOT/"src").rglob("*.j2")]:
        if p.name=="CHANGELOG.md" or "node_modules" in p.parts: continue
        t=p.read_text(encoding="utf-8"); rel=str(p.relative_to(ROOT))
        if p.suffix==".j2":
            def memb(k):
                by=members.get(k[1])
                if not by or any(x in bad or x.file.split("/")[2]!="present" for x in by.values()) : return k[0]
                return "."+next(iter(by.values())).new
            t2=re.sub(r"\{[{%].*?[%}]\}",lambda k:re.sub(r"\.(\w+)\b",memb,k[0]),t,flags=re.S)
        else:
            pub=lambda code:sub_code(code,rel,True)
            parts=re.split(r"(^ *```.*?^ *```)",t,flags=re.S|re.M)
            t2="".join(pub(x) if i%2 and "python" in x[:20] else re.sub(r"(`)([^`\n]+)(`)",lambda k:k[1]+pub(k[2])+k[3],x) for i,x in enumerate(parts))
        if t2!=t: p.write_text(t2,encoding="utf-8")
    return 0
sys.exit(main())
