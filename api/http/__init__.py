"""The control plane (Litestar). It only writes desired state and reads what the controller observed.

The law: it imports `api.web`, `api.contract` and nothing else of ours. `app.create_app` puts everything together out of
plain arguments; `serve.run` is the program. Handlers are closures over what they need, made by one factory per
group of routes: measured, an injected dependency costs more than all the rest of a bare request.
"""
