; c = a * b for square row-major matrices of n x n floats, n a multiple of 32: one work-item an element, every operand
; loaded from memory, workgroups of 32 x 8.
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare float @llvm.fma.f32(float, float, float)

define amdgpu_kernel void @matmul_naive(ptr addrspace(1) noalias %c, ptr addrspace(1) noalias readonly %a,
                                        ptr addrspace(1) noalias readonly %b, i32 %n) #0 {
entry:
  %x = call i32 @llvm.amdgcn.workitem.id.x()
  %y = call i32 @llvm.amdgcn.workitem.id.y()
  %group.x = call i32 @llvm.amdgcn.workgroup.id.x()
  %group.y = call i32 @llvm.amdgcn.workgroup.id.y()
  %first.column = shl i32 %group.x, 5
  %first.row = shl i32 %group.y, 3
  %column = or disjoint i32 %first.column, %x
  %row = or disjoint i32 %first.row, %y
  %a.row = mul i32 %row, %n
  br label %multiply

multiply:
  %k = phi i32 [ 0, %entry ], [ %k.next, %multiply ]
  %b.row = phi i32 [ 0, %entry ], [ %b.row.next, %multiply ]
  %sum = phi float [ 0.0, %entry ], [ %sum.next, %multiply ]
  %a.index = add i32 %a.row, %k
  %b.index = add i32 %b.row, %column
  %a.at = getelementptr float, ptr addrspace(1) %a, i32 %a.index
  %b.at = getelementptr float, ptr addrspace(1) %b, i32 %b.index
  %a.value = load float, ptr addrspace(1) %a.at
  %b.value = load float, ptr addrspace(1) %b.at
  %sum.next = call float @llvm.fma.f32(float %a.value, float %b.value, float %sum)
  %k.next = add i32 %k, 1
  %b.row.next = add i32 %b.row, %n
  %more = icmp ult i32 %k.next, %n
  br i1 %more, label %multiply, label %publish

publish:
  %c.index = add i32 %a.row, %column
  %c.at = getelementptr float, ptr addrspace(1) %c, i32 %c.index
  store float %sum.next, ptr addrspace(1) %c.at
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
