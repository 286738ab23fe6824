-- The part of a report that looks at breakers that are not closed.
if place.due then
  keep(meta, held, names, breakers)
end
if type(sample) == 'string' then
  local ok, b = pcall(read_breaker, breakers .. sample, FIELDS)
  if not ok or b.state == 'closed' and not b.lapsed then
    return answer({ sample })
  end
end
return answer({})
