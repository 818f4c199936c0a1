# ruff: noqa
# fmt: off
"""After ``rename.py --apply``: the names in the lazy exports of packages and in ``import_from_lab``, from the text at HEAD."""
import ast,csv,re,sys,subprocess
from pathlib import Path
root=Path(__file__).resolve().parents[2]; ren={}; moved={}
for t in sys.argv[1:]:
    for d in csv.DictReader(open(t,newline=""),delimiter="\t",quoting=csv.QUOTE_NONE):
        if d["kind"]=="name": ren.setdefault(d["file"],{})[d["old"]]=d["new"]
for p in sorted((root/"src").rglob("__init__.py")):
    rel=str(p.relative_to(root)); old=subprocess.run(["git","show","HEAD:"+rel],capture_output=True,text=True).stdout
    new=p.read_text()
    if "lazy_getattr(" not in new: continue
    do=[x for x in ast.walk(ast.parse(old)) if isinstance(x,ast.Dict)]; dn=[x for x in ast.walk(ast.parse(new)) if isinstance(x,ast.Dict)]
    assert len(do)==len(dn),rel
    edits=[]
    for a,b in zip(do,dn):
        for k,v,k2,v2 in zip(a.keys,a.values,b.keys,b.values):
            if not(isinstance(k,ast.Constant) and isinstance(k.value,str)): continue
            base=p.parent/Path(*k.value.split("."))
            f=base.with_suffix(".py") if base.with_suffix(".py").is_file() else base/"__init__.py"
            if not f.exists(): continue
            m=ren.get(str(f.relative_to(root)),{})
            if k2.value!=k.value: edits.append((k2,k.value))
            if isinstance(v,ast.Constant) and isinstance(v.value,str):
                w=" ".join(m.get(x,x) for x in v.value.split())
                if w!=" ".join(v2.value.split()): edits.append((v2,w))
    lines=new.split("\n")
    for n,w in sorted(edits,key=lambda e:(-e[0].lineno,-e[0].col_offset)):
        print(rel,n.value,"->",w)
        if n.lineno!=n.end_lineno:
            lines[n.lineno-1:n.end_lineno]=[lines[n.lineno-1].encode()[:n.col_offset].decode()+f'"{w}"'+lines[n.end_lineno-1].encode()[n.end_col_offset:].decode()]
        else:
            b=lines[n.lineno-1].encode(); lines[n.lineno-1]=(b[:n.col_offset]+f'"{w}"'.encode()+b[n.end_col_offset:]).decode()
    if edits: p.write_text("\n".join(lines))
for p in [*(root/"src").rglob("*.py"),*(root/"tests").rglob("*.py")]:
    text=p.read_text()
    def sub(m):
        f="src/fedlas/lab/"+m[1].replace(".","/")+".py"
        if not (root/f).exists(): f=f[:-3]+"/__init__.py"
        return f'import_from_lab("{m[1]}", "{ren.get(f,{}).get(m[2],m[2])}")'
    new=re.sub(r'import_from_lab\(\s*"([\w.]+)", "(\w+)"\s*\)',sub,text)
    if new!=text: p.write_text(new); print(p.relative_to(root),"lab")
